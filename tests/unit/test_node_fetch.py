"""The fetcher's decisions. That what it fetches runs is seen wherever the suite runs on it."""

from pathlib import Path

import pytest

from brokerjobs.errors import ConfigurationError
from brokerjobs.node import fetch as fetching
from brokerjobs.node.errors import RabbitMQNotFetched
from brokerjobs.node.fetch import SUITES, default_cache, fetch

DEPENDS = """\
rabbitmq-server
  Depends: adduser
 |Depends: erlang-base
  Depends: <erlang-base-hipe>
  Depends: erlang-crypto
  Depends: python3:any
<erlang-base-hipe>
adduser
  PreDepends: libpam0g
erlang-base
  Depends: libc6
  Depends: procps
erlang-crypto
  Depends: erlang-base
  Depends: libssl3t64
libc6
  Depends: libgcc-s1
libgcc-s1
  Depends: libc6
libssl3t64
  PreDepends: libc6
libpam0g
  Depends: libc6
procps
  Depends: libproc2
libproc2
"""


def fake(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Debian of our making: programs in this folder are the only ones."""
    folder = tmp_path / "bin"
    fake(folder, "dpkg", "echo amd64")
    fake(folder, "dpkg-deb", "exit 9")
    fake(folder, "apt-get", 'case "$*" in *indextargets*) echo https://mirror.example/debian ;; esac')
    fake(folder, "apt-cache", "echo 'Version: 4.3.6-1'")
    monkeypatch.setenv("PATH", str(folder))
    keyring = tmp_path / "keyring"
    keyring.touch()
    monkeypatch.setattr(fetching, "_KEYRINGS", (keyring,))
    return folder


def test_what_is_downloaded_is_erlang_and_the_libraries_it_links(apt: Path, tmp_path: Path) -> None:
    fake(
        apt,
        "apt-cache",
        f"case \"$*\" in *show*) echo 'Version: 4.3.6-1' ;; *) printf '%s' '{DEPENDS}' ;; esac",
    )
    fake(
        apt,
        "apt-get",
        f"""case "$*" in
            *indextargets*) echo https://mirror.example/debian ;;
            *" download "*) echo "$*" > {tmp_path}/downloaded; exit 1 ;;
        esac""",
    )
    with pytest.raises(RabbitMQNotFetched, match="apt-get"):
        fetch("4.3", tmp_path / "cache")
    arguments = (tmp_path / "downloaded").read_text().split()
    assert sorted(arguments[arguments.index("download") + 1 :]) == [
        "erlang-base",
        "erlang-crypto",
        "libc6",
        "libgcc-s1",
        "libssl3t64",
        "rabbitmq-server",
    ]


@pytest.mark.parametrize("version", ["", "4.9", "4.3.6", "3"])
def test_an_unknown_version_names_the_known_ones(version: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=", ".join(SUITES)):
        fetch(version, tmp_path)


def test_a_path_with_spaces_is_refused_before_anything_is_downloaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="without spaces"):
        fetch("4.3", tmp_path / "my cache")


def test_elsewhere_than_on_debian_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RabbitMQNotFetched, match="apt-get, apt-cache, dpkg, dpkg-deb"):
        fetch("4.3", tmp_path / "cache")


def test_without_debians_keys_nothing_is_downloaded(
    apt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_KEYRINGS", ())
    fake(apt, "apt-get", f"touch {tmp_path}/called")
    with pytest.raises(RabbitMQNotFetched, match="debian-archive-keyring"):
        fetch("4.3", tmp_path / "cache")
    assert not (tmp_path / "called").exists()


def test_a_system_without_a_debian_mirror_says_so(apt: Path, tmp_path: Path) -> None:
    fake(apt, "apt-get", "echo https://mirror.example/ubuntu")
    with pytest.raises(RabbitMQNotFetched, match="no Debian mirror"):
        fetch("4.3", tmp_path / "cache")


def test_a_suite_that_has_moved_on_is_noticed(apt: Path, tmp_path: Path) -> None:
    fake(apt, "apt-cache", "echo 'Version: 1:4.40.1-2'")
    with pytest.raises(RabbitMQNotFetched, match=r"forky has RabbitMQ 4\.40\.1-2 now, no longer 4\.3"):
        fetch("4.3", tmp_path / "cache")


def test_a_failed_fetch_leaves_nothing_and_shows_the_last_lines(apt: Path, tmp_path: Path) -> None:
    fake(
        apt,
        "apt-get",
        """case "$*" in
            *indextargets*) echo https://mirror.example/debian ;;
            *) echo "E: no network" >&2; exit 100 ;;
        esac""",
    )
    with pytest.raises(RabbitMQNotFetched, match=r"exit code 100:\nE: no network"):
        fetch("4.3", tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["rabbitmq-4.3.lock"]


def complete(folder: Path, mark: str) -> None:
    for script in "rabbitmq-server", "rabbitmqctl", "rabbitmq-plugins", "rabbitmq-env":
        (folder / "usr/lib/rabbitmq/sbin").mkdir(parents=True, exist_ok=True)
        fake(folder / "usr/lib/rabbitmq/sbin", script, "")
    (folder / "usr/lib/rabbitmq/bin").symlink_to("sbin")
    (folder / "usr/lib/rabbitmq/plugins/rabbit-4.3.6").mkdir(parents=True)
    (folder / "usr/lib/erlang/bin").mkdir(parents=True)
    for program in "erl", "epmd":
        fake(folder / "usr/lib/erlang/bin", program, "")
    (folder / "complete").write_text(mark)


def test_what_is_in_the_cache_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    said: list[str] = []
    complete(tmp_path / "rabbitmq-4.3", str(tmp_path / "rabbitmq-4.3"))
    assert fetch("4.3", tmp_path, said.append).version == (4, 3, 6)
    assert not said


@pytest.mark.parametrize("mark", ["", "/where/it/was/before"])
def test_what_is_unfinished_or_was_moved_is_fetched_again(
    mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    complete(tmp_path / "rabbitmq-4.3", mark)
    with pytest.raises(RabbitMQNotFetched, match="which needs apt-get"):
        fetch("4.3", tmp_path)


def test_the_cache_is_where_the_user_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "brokerjobs"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_cache() == Path("/home/me/.cache/brokerjobs")
