from pathlib import Path

import pytest

from brokerjobs.node.errors import RabbitMQNotFound
from brokerjobs.node.installation import Installation, find

SCRIPTS = ("rabbitmq-server", "rabbitmqctl", "rabbitmq-plugins", "rabbitmq-env")


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def release(root: Path, version: str = "4.3.6") -> Path:
    for script in SCRIPTS:
        program(root / "sbin" / script)
    (root / "plugins" / f"rabbit-{version}").mkdir(parents=True)
    (root / "plugins" / f"rabbit_common-{version}").mkdir()
    return root


def erlang(folder: Path) -> Path:
    for name in "erl", "epmd":
        program(folder / name)
    return folder


@pytest.fixture(autouse=True)
def _nothing_but_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("brokerjobs.node.installation._ERLANG_FOLDERS", ())


def test_an_unpacked_release_is_an_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(erlang(tmp_path / "erlang")))
    found = Installation.at(release(tmp_path / "rabbitmq"))
    assert found.version == (4, 3, 6)
    assert found.series == "4.3"
    assert found.scripts == tmp_path / "rabbitmq/sbin"
    assert found.erlang == tmp_path / "erlang"


def test_a_fetched_root_brings_its_own_erlang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(erlang(tmp_path / "another")))
    inside = release(tmp_path / "usr/lib/rabbitmq/lib/rabbitmq_server-3.10.8", "3.10.8")
    (tmp_path / "usr/lib/rabbitmq/bin").mkdir()
    for script in SCRIPTS:
        (tmp_path / "usr/lib/rabbitmq/bin" / script).symlink_to(inside / "sbin" / script)
    own = erlang(tmp_path / "usr/lib/erlang/bin")
    found = Installation.at(tmp_path)
    assert found.erlang == own
    assert found.version == (3, 10, 8)


def test_the_wrapper_on_path_that_switches_user_is_never_used(tmp_path: Path) -> None:
    real = release(tmp_path / "lib/rabbitmq_server-3.10.8", "3.10.8") / "sbin"
    for script in "rabbitmq-server", "rabbitmqctl", "rabbitmq-plugins":
        program(tmp_path / "usr/sbin" / script)
    path = f"{tmp_path / 'usr/sbin'}:{erlang(tmp_path / 'erlang')}"
    found = find(path, [real])
    assert found is not None
    assert found.scripts == real
    assert find(path, []) is None


def test_a_link_on_path_leads_to_the_release(tmp_path: Path) -> None:
    real = release(tmp_path / "Cellar/rabbitmq/4.3.6") / "sbin"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/rabbitmq-server").symlink_to(real / "rabbitmq-server")
    found = find(f"{tmp_path / 'bin'}:{erlang(tmp_path / 'erlang')}", [])
    assert found is not None
    assert found.scripts == real


def test_nothing_installed_is_none(tmp_path: Path) -> None:
    assert find(str(tmp_path), [tmp_path / "nowhere"]) is None


@pytest.mark.parametrize("version", ["3.9.27", "3.8.2"])
def test_an_old_version_is_refused_by_name(tmp_path: Path, version: str) -> None:
    with pytest.raises(RabbitMQNotFound, match=rf"{version} in .* is too old: 3\.10 or newer"):
        find(str(erlang(tmp_path / "erlang")), [release(tmp_path / "old", version) / "sbin"])


def test_missing_erlang_is_said(tmp_path: Path) -> None:
    with pytest.raises(RabbitMQNotFound, match="erl and epmd are not on PATH"):
        find(str(tmp_path), [release(tmp_path / "rabbitmq") / "sbin"])


def test_a_release_without_its_broker_is_incomplete(tmp_path: Path) -> None:
    root = release(tmp_path / "rabbitmq")
    (root / "plugins/rabbit-4.3.6").rmdir()
    with pytest.raises(RabbitMQNotFound, match="incomplete"):
        Installation.at(root)


@pytest.mark.parametrize(("name", "said"), [("absent", "no such folder"), (".", "no RabbitMQ in")])
def test_a_folder_without_rabbitmq_is_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(RabbitMQNotFound, match=said):
        Installation.at(tmp_path / name)
