"""The files of docker/ name what the code has: settings, ports, paths, queues, times."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from brokerjobs import discovery
from brokerjobs import settings as settings_module
from brokerjobs.cli import VERBS, command_of
from brokerjobs.durations import seconds
from brokerjobs.health import DEFAULT_PORT
from brokerjobs.node import compose as node_compose
from brokerjobs.settings import PREFIX, SECRETS, Settings
from brokerjobs.supervisor.child import GRACE
from brokerjobs.topology import Names
from tests import manifests
from tests.manifests import FOLDER, Manifest
from tests.pages import ROOT, blocks

SPARE = 5.0  # seconds between the worker's own end, if it is stuck, and SIGKILL
COMPOSE = manifests.compose()
WORKERS = {name: service for name, service in COMPOSE.items() if name.startswith("worker-")}
POD, CONTAINER = manifests.worker()
DOCKERFILE = manifests.dockerfile()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "Dockerfile": DOCKERFILE.variables,
    "worker.yaml": {variable["name"]: variable["value"] for variable in CONTAINER["env"]},
    **{name: service["environment"] for name, service in WORKERS.items()},
}
COMMANDS: dict[str, list[str]] = {
    "Dockerfile": ["consume"],
    "worker.yaml": CONTAINER["args"],
    **{name: service["command"] for name, service in WORKERS.items()},
}


def conf() -> dict[str, str]:
    return read_conf((ROOT / "rabbitmq.conf").read_text())


def read_conf(text: str) -> dict[str, str]:
    lines = [line.partition("#")[0] for line in text.splitlines()]
    return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines) if value}


def prometheus() -> dict[str, Manifest]:
    (found,) = manifests.documents(FOLDER / "prometheus/prometheus.yml")
    return {job["job_name"]: job for job in found["scrape_configs"]}


# -- settings and commands


@pytest.mark.parametrize("place", ENVIRONMENTS)
def test_variables_are_settings_with_values_that_can_be_used(place: str) -> None:
    given = {name: value for name, value in ENVIRONMENTS[place].items() if name.startswith(PREFIX)}
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    files = {f"{PREFIX}{name.upper()}_FILE" for name in SECRETS}

    assert set(given) <= known | files
    settings_module.load_with_sources({}, {name: given[name] for name in known & set(given)}, Path("/"))


@pytest.mark.parametrize("place", ENVIRONMENTS)
def test_other_variables_are_those_of_the_consumers(place: str) -> None:
    written = "".join(path.read_text() for path in (ROOT / "consumers").glob("*.py"))
    others = {name for name in ENVIRONMENTS[place] if not name.startswith((PREFIX, "PIP_"))}

    assert {name for name in others if f'"{name}"' not in written} <= {"PATH", "PYTHONUNBUFFERED"}


@pytest.mark.parametrize("place", COMMANDS)
def test_commands_are_verbs_with_options_that_exist(place: str) -> None:
    verb, *arguments = map(str, COMMANDS[place])

    found = command_of(verb).make_context(verb, arguments)

    declared = {consumer.queue for consumer in discovery.find("consumers")}
    assert set(found.params["queues"]) <= declared


def test_each_queue_has_a_worker_in_compose() -> None:
    consumed = [queue for command in COMMANDS.values() for queue in queues_of(command)]

    assert sorted(set(consumed)) == sorted(consumer.queue for consumer in discovery.find("consumers"))
    of_compose = [queue for service in WORKERS.values() for queue in queues_of(service["command"])]
    assert len(of_compose) == len(set(of_compose)), "two services for one queue"


def queues_of(command: list[str]) -> tuple[str, ...]:
    context = command_of("consume").make_context("consume", [str(word) for word in command[1:]])
    return tuple(context.params["queues"])


# -- the image


def test_the_image_starts_a_verb_of_the_program() -> None:
    assert DOCKERFILE.last("ENTRYPOINT") == f'["{next(iter(PROJECT["project"]["scripts"]))}"]'
    assert DOCKERFILE.last("CMD") == f'["{COMMANDS["Dockerfile"][0]}"]'
    program, verb = DOCKERFILE.health
    assert program == "brokerjobs"
    assert verb in VERBS


def test_the_image_is_of_a_python_that_is_promised() -> None:
    python = DOCKERFILE.last("ARG").removeprefix("PYTHON=")

    assert f"Programming Language :: Python :: {python}" in PROJECT["project"]["classifiers"]


def test_what_is_built_is_there_and_sent() -> None:
    project, build = PROJECT["project"], PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {project["readme"], *project["license-files"], *build["packages"], *build["force-include"]}

    assert needed <= set(DOCKERFILE.copied)
    for path in DOCKERFILE.copied:
        assert (ROOT / path).exists(), path
        assert manifests.is_sent(path), f"{path} is not let through by .dockerignore"
    assert manifests.is_sent("brokerjobs/amqp/session.py")


@pytest.mark.parametrize(
    "path", [".git/config", ".venv/bin/python", "tests/conftest.py", "secrets.env", "url"]
)
def test_what_lies_about_is_not_sent(path: str) -> None:
    assert not manifests.is_sent(path)


def test_nobody_is_root() -> None:
    user = DOCKERFILE.last("USER")
    context = POD["securityContext"]

    assert user == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "Kubernetes cannot see whether a name is root"
    assert all(f"--chown={user} " in copy for copy in DOCKERFILE.all("COPY") if "--chown" in copy)
    assert context["runAsNonRoot"] is True


def test_the_metrics_port_is_the_same_everywhere() -> None:
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    (workers,) = prometheus()["brokerjobs"]["dns_sd_configs"]

    assert int(DOCKERFILE.last("EXPOSE")) == workers["port"] == ports["metrics"] == DEFAULT_PORT
    assert f"{PREFIX}METRICS_PORT" not in {name for found in ENVIRONMENTS.values() for name in found}
    assert DOCKERFILE.variables[f"{PREFIX}METRICS_HOST"] == "0.0.0.0"


# -- time to stop


@pytest.mark.parametrize("place", [*WORKERS, "worker.yaml"])
def test_who_stops_a_worker_waits_longer_than_its_end_may_take(place: str) -> None:
    drain = seconds(ENVIRONMENTS[place][f"{PREFIX}DRAIN_TIMEOUT"])
    grace = (
        POD["terminationGracePeriodSeconds"]
        if place == "worker.yaml"
        else seconds(WORKERS[place]["stop_grace_period"])
    )

    assert grace >= drain + GRACE + SPARE


# -- compose


def test_without_a_profile_there_is_only_rabbitmq() -> None:
    assert [name for name, service in COMPOSE.items() if "profiles" not in service] == ["rabbitmq"]
    assert {profile for service in COMPOSE.values() for profile in service.get("profiles", [])} == {
        "workers",
        "monitoring",
    }


@pytest.mark.parametrize("name", COMPOSE)
def test_services_are_bounded_and_watched_and_local(name: str) -> None:
    service = COMPOSE[name]

    assert "mem_limit" in service
    assert "stop_grace_period" in service
    assert "healthcheck" in service or service["build"]["target"] == "examples"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    for source in (volume.partition(":")[0] for volume in service["volumes"]):
        assert not source.startswith(".") or (FOLDER / source).exists(), source


def test_targets_and_secrets_are_stages_and_services() -> None:
    stages = {rest.partition(" AS ")[2] for rest in DOCKERFILE.all("FROM")}
    for service in COMPOSE.values():
        if build := service.get("build"):
            assert build["target"] in stages
            assert (FOLDER / build["context"] / build["dockerfile"]).is_file()
        assert set(service.get("depends_on") or {}) <= set(COMPOSE)


def test_compose_publishes_the_ports_that_brokerjobs_looks_for() -> None:
    published = {port.rpartition(":")[0] for port in COMPOSE["rabbitmq"]["ports"]}

    for url in node_compose.URL.partition("@")[2].partition("/")[0], node_compose.MANAGEMENT_URL[7:]:
        assert url in published
    assert f"127.0.0.1:{conf()['prometheus.tcp.port']}" in published


def test_prometheus_scrapes_what_compose_starts() -> None:
    (workers,) = prometheus()["brokerjobs"]["dns_sd_configs"]
    aliases = {tuple(service["networks"]["default"]["aliases"]) for service in WORKERS.values()}

    assert aliases == {tuple(workers["names"])}
    for job in "rabbitmq", "rabbitmq-queues":
        assert prometheus()[job]["static_configs"] == [
            {"targets": [f"rabbitmq:{conf()['prometheus.tcp.port']}"]}
        ]


def test_grafana_finds_prometheus_and_its_dashboards() -> None:
    provisioning = FOLDER / "grafana/provisioning"
    (source,) = manifests.documents(next((provisioning / "datasources").iterdir()))[0]["datasources"]
    (provider,) = manifests.documents(next((provisioning / "dashboards").iterdir()))[0]["providers"]
    mounted = {inside for _, inside, _ in (one.split(":") for one in COMPOSE["grafana"]["volumes"][:2])}

    assert source["url"] == "http://prometheus:9090"
    assert mounted == {provider["options"]["path"], "/etc/grafana/provisioning"}


# -- Kubernetes


def test_manifests_have_names_of_their_own() -> None:
    names = [
        (found["apiVersion"], found["kind"], found["metadata"]["name"]) for found in manifests.kubernetes()
    ]

    assert len(names) == len(set(names))
    listed = set(manifests.documents(FOLDER / "k8s/kustomization.yaml")[0]["resources"])
    assert {path.name for path in (FOLDER / "k8s").iterdir()} - listed == {
        "kustomization.yaml",
        "scaledobject-by-time.yaml",
    }


def test_rabbitmq_is_told_there_what_rabbitmq_conf_says() -> None:
    spec = manifests.one("RabbitmqCluster")["spec"]
    plugins = set(re.findall(r"\w+", (FOLDER / "enabled_plugins").read_text()))

    assert read_conf(spec["rabbitmq"]["additionalConfig"]) == conf()
    added_by_the_operator = {"rabbitmq_peer_discovery_k8s", "rabbitmq_prometheus", "rabbitmq_management"}
    assert plugins <= {*spec["rabbitmq"]["additionalPlugins"], *added_by_the_operator}
    version = re.fullmatch(r"rabbitmq:(\d+)\.(\d+)-management", spec["image"])
    assert version
    assert (int(version[1]), int(version[2])) >= (4, 3), "before, our queues are not replicated"
    assert spec["replicas"] % 2, "a majority of an even number loses no more nodes"


def test_selectors_find_the_worker() -> None:
    deployment = manifests.one("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]

    for wanted in (
        deployment["spec"]["selector"]["matchLabels"],
        manifests.one("PodMonitor")["spec"]["selector"]["matchLabels"],
    ):
        assert wanted.items() <= labels.items()


def test_probes_ask_the_port_that_is_named() -> None:
    named = {port["name"] for port in CONTAINER["ports"]}

    for probe in "startupProbe", "livenessProbe", "readinessProbe":
        assert CONTAINER[probe]["httpGet"]["port"] in named
    (endpoint,) = manifests.one("PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in named


def test_the_url_lies_where_the_worker_looks() -> None:
    (volume,) = [volume for volume in POD["volumes"] if "secret" in volume]
    (mount,) = [mount for mount in CONTAINER["volumeMounts"] if mount["name"] == volume["name"]]
    (item,) = volume["secret"]["items"]

    file = ENVIRONMENTS["worker.yaml"][f"{PREFIX}URL_FILE"]
    assert file == f"{mount['mountPath']}/{item['path']}"
    cluster = manifests.one("RabbitmqCluster")["metadata"]["name"]
    assert volume["secret"]["secretName"] == f"{cluster}-default-user"


def test_queues_are_scraped_as_by_prometheus_itself() -> None:
    detailed = prometheus()["rabbitmq-queues"]
    (endpoint,) = [
        endpoint
        for endpoint in manifests.one("ServiceMonitor")["spec"]["endpoints"]
        if endpoint.get("path") == detailed["metrics_path"]
    ]

    assert endpoint["params"] == detailed["params"]


@pytest.mark.parametrize("name", ["scaledobject.yaml", "scaledobject-by-time.yaml"])
def test_scalers_look_at_the_queue_of_their_worker(name: str) -> None:
    found = manifests.documents(FOLDER / "k8s" / name)
    spec = manifests.one("ScaledObject", found)["spec"]
    (trigger,) = spec["triggers"]
    (queue,) = CONTAINER["args"][1:]

    assert spec["scaleTargetRef"]["name"] == manifests.one("Deployment")["metadata"]["name"]
    assert spec["minReplicaCount"] >= 1, "a cold start for the first job, and nobody who sweeps"
    told: dict[str, Any] = trigger["metadata"]
    if trigger["type"] == "rabbitmq":
        (kustomization,) = manifests.documents(FOLDER / "k8s/kustomization.yaml")
        cluster = manifests.one("RabbitmqCluster")["metadata"]["name"]
        port = conf()["management.tcp.port"]
        assert told["host"] == f"http://{cluster}.{kustomization['namespace']}.svc:{port}/"
        assert told["queueName"] == Names().queue(queue)
        assert told["protocol"] == "http", "over AMQP, what is unacknowledged does not count"
        authentication = manifests.one("TriggerAuthentication", found)
        assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    else:
        rules = (FOLDER / "prometheus/rules/recording.yml").read_text()
        (record,) = re.findall(r"brokerjobs:\w+", told["query"])
        assert f"record: {record}\n" in rules
        assert f'queue="{queue}"' in told["query"]
        assert float(told["threshold"]) <= Settings().concurrency


# -- the page


def test_the_example_of_an_own_image_builds_upon_ours() -> None:
    (example,) = [
        manifests.Dockerfile(block.text)
        for block in blocks(ROOT / "docs/deployment.md")
        if block.detail == "Dockerfile"
    ]

    assert example.last("FROM") == "brokerjobs"
    assert example.last("USER") == DOCKERFILE.last("USER"), "it would end as root"
    assert example.copied == ["consumers"]
