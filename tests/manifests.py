"""The files of docker/, as Docker, Compose and Kubernetes read them."""

from __future__ import annotations

import json
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Any

import yaml

from tests.pages import ROOT

FOLDER = ROOT / "docker"
Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    return [found for found in yaml.safe_load_all(path.read_text()) if found is not None]


def compose() -> dict[str, Manifest]:
    """The services of compose.yaml."""
    (found,) = documents(FOLDER / "compose.yaml")
    services: dict[str, Manifest] = found["services"]
    return services


def kubernetes() -> list[Manifest]:
    """All manifests that kustomization.yaml names."""
    (kustomization,) = documents(FOLDER / "k8s/kustomization.yaml")
    return [found for name in kustomization["resources"] for found in documents(FOLDER / "k8s" / name)]


def one(kind: str, manifests: list[Manifest] | None = None) -> Manifest:
    """The only manifest of this kind."""
    (found,) = [found for found in manifests or kubernetes() if found["kind"] == kind]
    return found


def worker() -> tuple[Manifest, Manifest]:
    """The pod of the worker's Deployment, and its container."""
    pod: Manifest = one("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


class Dockerfile:
    """A Dockerfile, instruction by instruction.

    Args:
        text: of it.
    """

    def __init__(self, text: str) -> None:
        lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
        self.instructions = [
            (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word
        ]

    def all(self, word: str) -> list[str]:
        return [rest for instruction, rest in self.instructions if instruction == word]

    def last(self, word: str) -> str:
        return self.all(word)[-1]

    @property
    def variables(self) -> dict[str, str]:
        pairs = [pair.partition("=") for rest in self.all("ENV") for pair in shlex.split(rest)]
        return {name: value for name, _, value in pairs}

    @property
    def copied(self) -> list[str]:
        """What comes from the folder that is built."""
        plain = [shlex.split(rest) for rest in self.all("COPY") if not rest.startswith("--")]
        return [source for *sources, _ in plain for source in sources]

    @property
    def health(self) -> list[str]:
        """The command that says whether a container is healthy."""
        return list(json.loads(self.last("HEALTHCHECK").partition(" CMD ")[2]))


def dockerfile() -> Dockerfile:
    return Dockerfile((FOLDER / "Dockerfile").read_text())


def is_sent(path: str) -> bool:
    """Whether .dockerignore lets this file or folder through; of the lines that fit, the last decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            whole = PurePath(path)
            if any(fnmatch(str(part), pattern) for part in (whole, *whole.parents)):
                sent = line.startswith("!")
    return sent
