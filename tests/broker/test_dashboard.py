"""What an operator sees: our rules and our dashboard in a real Prometheus, beside a real RabbitMQ and a busy worker."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from brokerjobs.client import Client
from brokerjobs.node.ports import reserve
from brokerjobs.node.private import PrivateNode
from brokerjobs.settings import Settings
from tests.dashboards import expressions, metrics_in, rules
from tests.prometheus import SHOWN, Prometheus, running
from tests.shell import Shell
from tests.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

NAMESPACE = "shop"
CONSUMER = """
import time

from brokerjobs import Consumer, Reject, Retry, current_job

consumer = Consumer("crunch", retry=Retry(delays=[0.25]))

@consumer.job()
def numbers():
    time.sleep(0.05)

@consumer.job()
async def flaky():
    if current_job().attempt == 1:
        raise ValueError("not yet")

@consumer.job()
async def broken():
    raise Reject("never")
"""
LOAD = ("crunch.numbers", "crunch.numbers", "crunch.flaky", "crunch.broken")
CHOSEN = {
    "$queue": "crunch",
    "$job_name": "crunch[.].*",
    "$__rate_interval": "5s",
    "$__range": f"{SHOWN}s",
}


@pytest.fixture
def shell(tmp_path: Path, environment: dict[str, str]) -> Iterator[Shell]:
    shell = Shell(tmp_path, {**environment, "BROKERJOBS_NAMESPACE": NAMESPACE})
    shell.write("consumers/crunch.py", CONSUMER)
    yield shell
    shell.close()


def test_every_rule_and_every_panel_has_data(
    node: PrivateNode, vhost: str, settings: Settings, shell: Shell, tmp_path: Path
) -> None:
    with reserve() as port:
        targets = {
            "brokerjobs": f"127.0.0.1:{port.number}",
            "rabbitmq": f"127.0.0.1:{node.ports.prometheus}",
            "rabbitmq-queues": f"127.0.0.1:{node.ports.prometheus}",
        }
        worker = shell.start("consume", "crunch", "-p", "2", "-c", "4", "--metrics-port", str(port.number))
        chosen = settings.model_copy(update={"namespace": NAMESPACE})
        # Prometheus looks at its first targets after 5 s: the worker starts meanwhile.
        with running(tmp_path, targets) as prometheus, Client(settings=chosen) as client:
            worker.until("child consuming", times=2)
            keep_busy(client, prometheus)

            assert prometheus.ask("up == 0") == []
            assert ailing_rules(prometheus) == []
            assert missing_metrics(prometheus) == set()
            assert [rule.name for rule in rules("record") if not prometheus.ask(rule.name)] == []
            assert [(title, asked) for title, asked in expressions() if not shows(prometheus, asked)] == []
            check_names(prometheus, vhost)
            check_texts(prometheus)


def keep_busy(client: Client, prometheus: Prometheus) -> None:
    """Send jobs until Prometheus has seen some of all for some seconds."""
    turns = count()

    def is_seen() -> bool:
        number = next(turns)
        client.send(LOAD[number % len(LOAD)])
        return number % 20 == 0 and (
            prometheus.value("count_over_time(brokerjobs:slots_needed[1m])") >= 3
            and prometheus.value('sum(brokerjobs_job_attempts_bucket{le="2.0"})') > 10
            and prometheus.value(f'brokerjobs:queue_dead{{jobs_namespace="{NAMESPACE}"}}') > 5
            and prometheus.value('count(ALERTS{alertname="BrokerjobsDeadLetters"})') > 0
        )

    eventually(is_seen, timeout=90, what="all that a worker does is seen")


def shows(prometheus: Prometheus, expression: str) -> bool:
    for variable, value in CHOSEN.items():
        expression = expression.replace(variable, value)
    return prometheus.shows(expression)


def ailing_rules(prometheus: Prometheus) -> list[tuple[str, str]]:
    return [
        (rule["name"], rule["lastError"])
        for group in prometheus.get("rules")["groups"]
        for rule in group["rules"]
        if rule["health"] != "ok"
    ]


def missing_metrics(prometheus: Prometheus) -> set[str]:
    """The names that rules and panels ask for and nobody tells: a branch after an `or` can be silent."""
    asked = [expression for _, expression in expressions()]
    asked += [rule.expr for kind in ("alert", "record") for rule in rules(kind)]
    return {name for text in asked for name in metrics_in(text)} - set(
        prometheus.get("label/__name__/values")
    )


def check_names(prometheus: Prometheus, vhost: str) -> None:
    """RabbitMQ and worker speak of the same queue, by the name that users say."""
    here = {"vhost": vhost, "jobs_namespace": NAMESPACE, "queue": "crunch"}
    for name in ("brokerjobs:queue_ready", "brokerjobs:queue_consumers", "brokerjobs:queue_dead"):
        found = [labels for labels, _ in prometheus.ask(name) if labels["queue"] == "crunch"]
        assert found == [{"__name__": name, **here}]
    assert prometheus.value('brokerjobs:queue_consumers{queue="crunch"}') == 2
    assert prometheus.value('brokerjobs_queue_consumers{queue="crunch"}') == 2
    finished = prometheus.ask("sum by (job, job_name) (brokerjobs_jobs_finished_total)")
    assert {labels["job_name"] for labels, _ in finished} == {
        "crunch.numbers", "crunch.flaky", "crunch.broken", "other",
    }  # fmt: skip
    assert {labels["job"] for labels, _ in finished} == {"brokerjobs"}
    assert not [label for label in prometheus.get("labels") if label.startswith("exported_")]


def check_texts(prometheus: Prometheus) -> None:
    """What the pager shows: jobs have died, so that alert is about to fire."""
    alerts = {found["labels"]["alertname"]: found for found in prometheus.get("alerts")["alerts"]}
    texts = alerts["BrokerjobsDeadLetters"]["annotations"]

    assert texts["summary"].endswith(" dead letters in crunch")
    assert f"`brokerjobs dead list crunch --group --namespace {NAMESPACE}`" in texts["description"]
    assert not [found for found in alerts.values() if "error expanding" in str(found["annotations"])]
