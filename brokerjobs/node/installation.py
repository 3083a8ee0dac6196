"""RabbitMQ installations: where the scripts are, which version, and the Erlang they run on."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from brokerjobs.node.errors import RabbitMQNotFound

OLDEST = (3, 10)  # the first with at-least-once dead-lettering, on which the delay levels stand

KNOWN_FOLDERS = (
    Path("/usr/lib/rabbitmq/bin"),  # Debian, Ubuntu, Fedora
    Path("/opt/homebrew/sbin"),
    Path("/usr/local/sbin"),
    Path("/home/linuxbrew/.linuxbrew/sbin"),
)
_ERLANG_FOLDERS = (
    Path("/usr/lib/erlang/bin"),
    Path("/opt/homebrew/bin"),
    Path("/usr/local/bin"),
    Path("/home/linuxbrew/.linuxbrew/bin"),
)
_SCRIPTS = ("rabbitmq-server", "rabbitmqctl", "rabbitmq-plugins", "rabbitmq-env")


@dataclass(frozen=True, kw_only=True, slots=True)
class Installation:
    """A RabbitMQ that can be started from its own scripts, by any user."""

    scripts: Path
    """The folder of `rabbitmq-server` and `rabbitmqctl`; never the system-wide wrappers, which
    switch to the user rabbitmq."""
    erlang: Path
    """The folder of `erl` and `epmd`, to stand first on PATH."""
    version: tuple[int, int, int]

    @property
    def version_text(self) -> str:
        """Such as "4.3.6"."""
        return ".".join(map(str, self.version))

    @property
    def series(self) -> str:
        """The version without its last part: nodes of one series can share a data folder."""
        return ".".join(map(str, self.version[:2]))

    @classmethod
    def at(cls, folder: Path) -> Installation:
        """The installation in this folder.

        Args:
            folder: the root of an unpacked release, a system root, or the folder of the scripts.

        Raises:
            RabbitMQNotFound: there is none, it lacks Erlang, or it is too old.
        """
        folder = folder.expanduser().absolute()
        if not folder.is_dir():
            raise RabbitMQNotFound(f"no such folder: {folder}")
        for scripts in folder / "usr/lib/rabbitmq/bin", folder / "sbin", folder:
            if (installation := _from_scripts(scripts, _erlang_near(folder))) is not None:
                return installation
        raise RabbitMQNotFound(
            f"no RabbitMQ in {folder}: expected {folder}/sbin/rabbitmq-server, as in an unpacked "
            "release, or the folder that holds the scripts rabbitmq-server and rabbitmq-env"
        )


def find(search_path: str | None = None, folders: Iterable[Path] = KNOWN_FOLDERS) -> Installation | None:
    """The RabbitMQ installed on this machine, or None.

    Args:
        search_path: folders separated by colons; PATH when None.
        folders: where else to look.

    Raises:
        RabbitMQNotFound: there is one, but it lacks Erlang or is too old.
    """
    if search_path is None:
        search_path = os.environ.get("PATH", os.defpath)
    candidates = list(folders)
    if on_path := shutil.which("rabbitmq-server", path=search_path):
        candidates.insert(0, Path(on_path).resolve().parent)
    erlang = [Path(folder) for folder in search_path.split(os.pathsep) if folder]
    for scripts in candidates:
        if (installation := _from_scripts(scripts, erlang)) is not None:
            return installation
    return None


def _from_scripts(scripts: Path, erlang: Iterable[Path]) -> Installation | None:
    if not all(os.access(scripts / script, os.X_OK) for script in _SCRIPTS):
        return None
    version = _version(scripts)
    if version[:2] < OLDEST:
        raise RabbitMQNotFound(
            f"RabbitMQ {'.'.join(map(str, version))} in {scripts} is too old: "
            f"{'.'.join(map(str, OLDEST))} or newer is needed"
        )
    for folder in (*erlang, *_ERLANG_FOLDERS):
        if all(os.access(folder / program, os.X_OK) for program in ("erl", "epmd")):
            return Installation(scripts=scripts, erlang=folder, version=version)
    raise RabbitMQNotFound(f"RabbitMQ is in {scripts}, but Erlang's programs erl and epmd are not on PATH")


def _erlang_near(folder: Path) -> list[Path]:
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return [folder / "usr/lib/erlang/bin", *(Path(entry) for entry in path if entry)]


def _version(scripts: Path) -> tuple[int, int, int]:
    """Read from the name of the broker's own plugin, so that nothing need be run."""
    release = (scripts / "rabbitmq-server").resolve().parent.parent
    for plugin in release.glob("plugins/rabbit-*"):
        if found := re.match(r"rabbit-(\d+)\.(\d+)\.(\d+)", plugin.name):
            major, minor, patch = map(int, found.groups())
            return major, minor, patch
    raise RabbitMQNotFound(f"RabbitMQ in {scripts} is incomplete: no {release}/plugins/rabbit-*")
