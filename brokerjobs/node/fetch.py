"""RabbitMQ of a chosen version in a folder of the user's: no root, nothing installed.

The packages come from the Debian release that has that version, through the mirror that this
system's apt uses and checked against Debian's keys. They bring their own C library and loader, so
that they run on any Debian-like host, whatever its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from brokerjobs.errors import ConfigurationError
from brokerjobs.node.command import run
from brokerjobs.node.errors import RabbitMQNotFetched
from brokerjobs.node.installation import Installation
from brokerjobs.node.locks import locked

SUITES: Mapping[str, str] = MappingProxyType({"3.10": "bookworm", "4.0": "trixie", "4.3": "forky"})

_KEYRINGS = tuple(
    Path("/usr/share/keyrings") / f"debian-archive-keyring.{ending}" for ending in ("pgp", "gpg")
)
_PROGRAMS = ("apt-get", "apt-cache", "dpkg", "dpkg-deb")
# Erlang and the libraries it links; not what only the service or the package's scripts need.
_WANTED = re.compile(r"erlang-|lib|zlib1g")
_TIMEOUT = 900.0  # seconds, for all of it


def default_cache() -> Path:
    """Below $XDG_CACHE_HOME, by default ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root).absolute() / "brokerjobs"


def fetch(
    version: str, cache: Path | None = None, say: Callable[[str], object] = lambda _: None
) -> Installation:
    """RabbitMQ of this version, fetched if it is not in the cache yet.

    Args:
        version: a key of `SUITES`.
        cache: a folder; `default_cache()` when None. Safe for several processes at once.
        say: is told about what takes time.

    Raises:
        ConfigurationError: no such version, or an unusable folder.
        RabbitMQNotFetched: not on a Debian-like system, no network, or the mirror has it no more.
    """
    if version not in SUITES:
        raise ConfigurationError(
            f"RabbitMQ {version!r} cannot be fetched: choose one of {', '.join(SUITES)}, "
            "or give the folder of an installation"
        )
    folder = (cache or default_cache()) / f"rabbitmq-{version}"
    if re.search(r"\s", str(folder)):
        raise ConfigurationError(
            f"RabbitMQ's scripts cannot run from {str(folder)!r}: a path without spaces is needed "
            "(XDG_CACHE_HOME chooses it)"
        )
    if _is_complete(folder):
        return Installation.at(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with locked(
            folder.with_name(f"{folder.name}.lock"),
            timeout=_TIMEOUT,
            on_wait=lambda: say(f"waiting for another process that fetches RabbitMQ {version}"),
        ):
            if not _is_complete(folder):
                say(f"fetching RabbitMQ {version} (40 MB, about 15 s) into {folder}")
                _fetch(version, folder)
    except TimeoutError as error:
        raise RabbitMQNotFetched(f"another process fetches and does not end: {error}") from None
    return Installation.at(folder)


def _is_complete(folder: Path) -> bool:
    """The mark is written last and names the folder, because its programs know their place."""
    try:
        return _mark(folder).read_text() == str(folder)
    except FileNotFoundError:
        return False


def _mark(folder: Path) -> Path:
    return folder / "complete"


def _fetch(version: str, folder: Path) -> None:
    with _scratch(folder) as scratch:
        apt = _Apt(SUITES[version], scratch)
        found = apt.version_of("rabbitmq-server")
        if not found.startswith(f"{version}."):
            raise RabbitMQNotFetched(
                f"Debian {SUITES[version]} has RabbitMQ {found} now, no longer {version}: "
                "update brokerjobs, or give the folder of an installation"
            )
        root = scratch / "root"
        root.mkdir()
        packages = apt.download(["rabbitmq-server", *apt.needs("rabbitmq-server", _WANTED)])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda deb: _run(["dpkg-deb", "--extract", deb, root]), packages))
        _collect_libraries(root)
        _make_runnable(root, folder)
        shutil.rmtree(folder, ignore_errors=True)
        root.rename(folder)
    _check_runs(folder)
    _mark(folder).write_text(str(folder))


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """An empty folder beside this one; what a killed fetch left there goes first."""
    path = folder.with_name(f"{folder.name}.fetching")
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class _Apt:
    """Another Debian release than the system's, seen through an apt state of its own."""

    def __init__(self, suite: str, scratch: Path) -> None:
        keyring = next((path for path in _KEYRINGS if path.exists()), None)
        missing = [program for program in _PROGRAMS if not shutil.which(program)]
        if missing or keyring is None:
            raise RabbitMQNotFetched(
                "RabbitMQ versions are fetched from Debian, which needs "
                + (", ".join(missing) or "the package debian-archive-keyring")
                + "; elsewhere give the folder of an installation"
            )
        self._archives = scratch / "archives"
        for part in scratch / "lists" / "partial", self._archives:
            part.mkdir(parents=True)
        (scratch / "status").touch()
        architecture = _run(["dpkg", "--print-architecture"]).strip()
        (scratch / "sources.list").write_text(
            f"deb [signed-by={keyring} arch={architecture}] {_mirror()} {suite} main\n"
        )
        self._config = scratch / "apt.conf"
        self._config.write_text(_apt_conf(scratch))
        _run(["apt-get", *self._options, "update"])

    def version_of(self, package: str) -> str:
        shown = _run(["apt-cache", *self._options, "show", "--no-all-versions", package])
        found = re.search(r"^Version: (?:\d+:)?(\S+)$", shown, re.MULTILINE)
        return found[1] if found else "?"

    def needs(self, package: str, wanted: re.Pattern[str]) -> list[str]:
        """What the package depends on, over packages of wanted names only."""
        listing = _run(["apt-cache", *self._options, "depends", "--recurse", "--important", package])
        depends = _parse_depends(listing)
        found: list[str] = []
        to_visit = [package]
        while to_visit:
            for name in depends.get(to_visit.pop(), ()):
                if wanted.match(name) and name in depends and name not in found:
                    found.append(name)
                    to_visit.append(name)
        return found

    def download(self, packages: Sequence[str]) -> list[Path]:
        _run(["apt-get", *self._options, "download", *packages], cwd=self._archives)
        return sorted(self._archives.glob("*.deb"))

    @property
    def _options(self) -> list[str]:
        return ["--config-file", str(self._config), "--quiet=2"]


def _apt_conf(scratch: Path) -> str:
    """The system's settings, such as a proxy, stay in force; its sources and hooks do not."""
    return f"""\
Dir::Etc::SourceList "{scratch}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State::Lists "{scratch}/lists";
Dir::State::Status "{scratch}/status";
Dir::Cache "{scratch}";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
APT::Default-Release "";
APT::Sandbox::User "";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


def _mirror() -> str:
    sources = _run(
        ["apt-get", "indextargets", "--no-release-info", "--format", "$(SITE)", "Created-By: Packages"]
    )
    for site in sources.split():
        if re.search(r"/debian/?$", site):
            return site
    raise RabbitMQNotFetched(
        "this system's apt knows no Debian mirror to fetch RabbitMQ from: give the folder of an installation"
    )


def _parse_depends(listing: str) -> dict[str, list[str]]:
    """From `apt-cache depends --recurse`: a package at the margin, what it needs indented."""
    depends: dict[str, list[str]] = {}
    names: list[str] = []
    for line in listing.splitlines():
        if line and line[0] not in " |<":
            names = depends.setdefault(line.strip().partition(":")[0], [])
        elif needed := re.match(r"[ |]+(?:Pre)?Depends: ([^<\s:]+)", line):
            names.append(needed[1])
    return depends


def _collect_libraries(root: Path) -> None:
    """Into one folder: Debian keeps them in two, of which releases merge the one into the other."""
    libraries = root / "libraries"
    libraries.mkdir()
    for folder in root.glob("lib/*-linux-*"), root.glob("usr/lib/*-linux-*"):
        for path in folder:
            for library in path.glob("*.so*"):
                if not (libraries / library.name).exists():
                    library.rename(libraries / library.name)
    for unneeded in "etc", "lib", "lib64", "sbin", "var", "usr/bin", "usr/sbin", "usr/share":
        shutil.rmtree(root / unneeded, ignore_errors=True)


def _make_runnable(root: Path, final: Path) -> None:
    """Let each Erlang program run with the loader and the libraries that came with it.

    Args:
        root: where the files are.
        final: where they will be.
    """
    loader = next((root / "libraries").glob("ld*.so*")).name
    erlang = root / "usr/lib/erlang"
    for program in [path for path in erlang.rglob("*") if _is_program(path)]:
        binary = program.with_name(program.name + ".elf")
        program.rename(binary)
        _write_script(
            program,
            f'exec "{final}/libraries/{loader}" --library-path "{final}/libraries" '
            f'--argv0 "$0" "{final}/{binary.relative_to(root)}" "$@"',
        )
    runtime = next(erlang.glob("erts-*")).relative_to(root)
    for erl in erlang / "bin/erl", root / runtime / "bin/erl":
        erl.unlink(missing_ok=True)
        _write_script(
            erl,
            f'export ROOTDIR="{final}/usr/lib/erlang" BINDIR="{final}/{runtime}/bin" '
            'EMU=beam PROGNAME=erl\nexec "$BINDIR/erlexec" "$@"',
        )


def _is_program(path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or not os.access(path, os.X_OK) or ".so" in path.name:
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _write_script(path: Path, commands: str) -> None:
    path.write_text(f"#!/bin/sh\n{commands}\n")
    path.chmod(0o755)


def _check_runs(folder: Path) -> None:
    erl = folder / "usr/lib/erlang/bin/erl"
    _run([erl, "-noshell", "-eval", "ok = crypto:start(), halt(0)."])


def _run(command: Sequence[str | Path], cwd: Path | None = None) -> str:
    text = f"{Path(command[0]).name} {command[-1]}"
    try:
        done = run(command, cwd=cwd, env={**os.environ, "LC_ALL": "C"}, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise RabbitMQNotFetched(f"{text} took more than {_TIMEOUT:.0f} s") from None
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise RabbitMQNotFetched(f"{text} failed with exit code {done.returncode}:\n{last}")
    return done.stdout
