"""The worker of docker/k8s/worker.yaml, with the variables of its manifest and of its image: probed, then stopped."""

from __future__ import annotations

import urllib.error
import urllib.request
from signal import SIGTERM

import pytest

from brokerjobs.node.ports import reserve
from tests import manifests
from tests.conftest import one_version
from tests.shell import Shell
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)

CONSUMER = """
from brokerjobs import Consumer

consumer = Consumer("emails")

@consumer.job()
async def welcome(user_id: int) -> None: ...
"""


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def wait_until_content(url: str) -> None:
    eventually(lambda: status(url) == 200, what=f"{url} is content")


@one_version
def test_the_worker_of_the_manifest_is_probed_and_stops_in_time(online: Shell, url: str) -> None:
    online.write("consumers/emails.py", CONSUMER)
    pod, container = manifests.worker()
    image = manifests.dockerfile()
    program, *health = image.health
    assert program == "brokerjobs"
    with reserve() as port:
        del online.env["BROKERJOBS_URL"]
        online.env |= {name: value for name, value in image.variables.items() if name != "PATH"}
        online.env |= {variable["name"]: variable["value"] for variable in container["env"]}
        online.env |= {
            "BROKERJOBS_URL_FILE": str(online.write("secrets/url", url)),
            "BROKERJOBS_METRICS_PORT": str(port.number),
        }
        assert online.run(*health).code != 0, "nobody is there"
        worker = online.start(*container["args"])
        worker.until("consuming")

        for probe in "readinessProbe", "livenessProbe", "startupProbe":
            wait_until_content(f"http://127.0.0.1:{port.number}{container[probe]['httpGet']['path']}")
        assert online.run(*health).code == 0

        worker.signal(SIGTERM)
        assert worker.process.wait(pod["terminationGracePeriodSeconds"]) == 0
