from brokerjobs import definitions, topology
from brokerjobs.capabilities import Capabilities
from brokerjobs.topology import Names

NEW = Capabilities.of({"product": "RabbitMQ", "version": "4.3"})


def test_each_part_becomes_one_definition_that_outlives_a_restart() -> None:
    parts = topology.shared(Names()) + topology.for_queue(Names(), "emails", NEW)

    found = definitions.document(parts, "shop")

    assert [len(found[kind]) for kind in ("exchanges", "queues", "bindings")] == [
        len(parts.exchanges),
        len(parts.queues),
        len(parts.bindings),
    ]
    assert {part["vhost"] for kind in found.values() for part in kind} == {"shop"}
    assert all(part["durable"] for kind in ("exchanges", "queues") for part in found[kind])


def test_bindings_say_whether_they_lead_to_a_queue_or_an_exchange() -> None:
    found = definitions.document(topology.shared(Names()), "/")

    kinds = {(binding["destination"], binding["destination_type"]) for binding in found["bindings"]}
    assert ("jobs.v1.delay.03", "queue") in kinds
    assert ("jobs.v1.after.03", "exchange") in kinds


def test_there_are_no_users_and_so_no_passwords() -> None:
    assert set(definitions.document(topology.shared(Names()), "/")) == {"exchanges", "queues", "bindings"}
