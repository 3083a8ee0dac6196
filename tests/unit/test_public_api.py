"""What `import brokerjobs` offers: these names, no others, each made when first used."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

import brokerjobs


def test_names_are_sorted_classes_first() -> None:
    names = brokerjobs.__all__

    assert names == sorted(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", brokerjobs.__all__)
def test_every_name_can_be_imported_and_says_what_it_is(name: str) -> None:
    value = getattr(brokerjobs, name)

    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__name__ == name
        assert inspect.getdoc(value)


def test_lazy_table_holds_exactly_the_public_names() -> None:
    assert sorted(brokerjobs._WHERE) == brokerjobs.__all__


@pytest.mark.parametrize(("name", "module"), brokerjobs._WHERE.items())
def test_lazy_table_says_where_a_name_is_defined(name: str, module: str) -> None:
    value = getattr(importlib.import_module(f"brokerjobs.{module}"), name)

    assert value is getattr(brokerjobs, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__module__.removeprefix("brokerjobs.") == module


def test_errors_that_a_caller_may_meet_are_all_public() -> None:
    from brokerjobs import errors

    found = {
        name
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if cls.__module__ == errors.__name__
        and issubclass(cls, errors.PublishRefused | errors.PublishUnknown)
    }

    assert found <= set(brokerjobs.__all__)


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="'brokerjobs' has no attribute 'Celery'"):
        _ = brokerjobs.Celery


def test_dir_shows_what_there_is() -> None:
    assert dir(brokerjobs) == sorted([*brokerjobs.__all__, "__version__"])


def test_types_are_shipped() -> None:
    import importlib.resources

    assert importlib.resources.files(brokerjobs).joinpath("py.typed").is_file()


def test_import_is_light() -> None:
    """`brokerjobs --help` must not load the AMQP clients."""
    heavy = (
        "pika",
        "aio_pika",
        "aiormq",
        "pydantic",
        "prometheus_client",
        "structlog",
        "tenacity",
        "asyncio",
    )

    found = subprocess.run(
        [sys.executable, "-c", "import sys, brokerjobs; print(*sys.modules)"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert not set(heavy) & set(found.stdout.split())


def test_a_worker_loads_nothing_that_it_does_not_use() -> None:
    """Each of these costs every worker process megabytes and a tenth of its start."""
    program = """
import sys
from brokerjobs.cli import cli
cli.get_command(None, "consume")
import brokerjobs.client, brokerjobs.worker
print(*sys.modules)
import rich.console
"""
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    names = set(loaded.split())
    assert "brokerjobs.amqp.session" in names
    assert not names & {
        "pika",
        "rich.console",
        "pygments",
        "brokerjobs.amqp.owner",
        "brokerjobs.supervisor.supervisor",
    }
