from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brokerjobs import Consumer, discovery
from brokerjobs.errors import ConfigurationError

_numbers = itertools.count()
EMAILS = "from brokerjobs import Consumer\nconsumer = Consumer('emails')\n"
ORDERS = "from brokerjobs import Consumer\nconsumer = Consumer('orders')\n"

Package = Callable[..., str]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """Write a package of these modules into the working folder; gives its name, new each time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(**modules: str) -> str:
        name = f"found{next(_numbers)}"
        folder = tmp_path / name
        folder.mkdir()
        for module, source in {"__init__": "", **modules}.items():
            (folder / f"{module}.py").write_text(source)
        return name

    yield write
    for module in set(sys.modules) - before:
        if module.startswith("found"):
            del sys.modules[module]


def queues(name: str, *asked: str) -> list[str]:
    return [consumer.queue for consumer in discovery.find(name, asked)]


def test_queue_is_found_in_the_module_of_its_name(package: Package) -> None:
    name = package(emails=EMAILS, orders=ORDERS)

    assert queues(name, "emails") == ["emails"]
    assert f"{name}.orders" not in sys.modules  # a neighbour is not even imported


def test_queues_come_in_the_order_asked_for_and_once_each(package: Package) -> None:
    name = package(emails=EMAILS, orders=ORDERS)

    assert queues(name, "orders", "emails", "orders") == ["orders", "emails"]


def test_home_is_a_module_that_holds_the_consumer_one_of_the_package_first(package: Package) -> None:
    name = package(emails=EMAILS)
    (consumer,) = discovery.find(name, ["emails"])
    sys.modules["f"] = sys.modules[f"{name}.emails"]
    try:
        assert discovery.home_of(consumer, name) == f"{name}.emails"
        assert discovery.home_of(consumer, "elsewhere") == "f"
    finally:
        del sys.modules["f"]


def test_consumer_of_a_function_or_of_the_program_has_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = Consumer("emails")
    monkeypatch.setattr(sys.modules["__main__"], "consumer", consumer, raising=False)

    assert discovery.home_of(consumer, "consumers") is None


def test_without_a_name_all_are_found(package: Package) -> None:
    name = package(emails=EMAILS, orders=ORDERS, _private="raise RuntimeError", helper="x = 1")

    assert queues(name) == ["emails", "orders"]


def test_queue_with_a_dash_is_found_in_the_module_with_an_underscore(package: Package) -> None:
    name = package(e_mails="from brokerjobs import Consumer\nconsumer = Consumer('e-mails')\n")

    assert queues(name, "e-mails") == ["e-mails"]


def test_queue_is_found_under_any_variable_of_any_module(package: Package) -> None:
    name = package(
        a="x = 1",
        shop=EMAILS + "second, again = Consumer('orders'), consumer\n",
    )

    assert queues(name, "orders") == ["orders"]
    assert sorted(queues(name)) == ["emails", "orders"]


def test_consumer_that_others_import_is_found_once(package: Package) -> None:
    name = package(emails=EMAILS, second="from .emails import consumer\n")

    assert queues(name) == ["emails"]


def test_package_may_be_nested(package: Package, tmp_path: Path) -> None:
    name = package()
    inner = tmp_path / name / "jobs"
    inner.mkdir()
    (inner / "__init__.py").touch()
    (inner / "emails.py").write_text(EMAILS)

    assert queues(f"{name}.jobs", "emails") == ["emails"]


def test_package_needs_no_init_file(package: Package, tmp_path: Path) -> None:
    name = package(emails=EMAILS)
    (tmp_path / name / "__init__.py").unlink()

    assert queues(name, "emails") == ["emails"]


def test_broken_neighbour_does_not_stop_a_queue(package: Package) -> None:
    name = package(emails=EMAILS, broken="raise RuntimeError('no')")

    assert queues(name, "emails") == ["emails"]


# ---- what cannot be found says why


def test_missing_package_says_where_it_is_looked_for(package: Package) -> None:
    package()

    with pytest.raises(
        ConfigurationError, match=r"there is no Python package 'unheard_of' here.*--consumers PACKAGE"
    ):
        discovery.find("unheard_of.jobs", ["emails"])


def test_missing_part_of_a_package_is_named(package: Package) -> None:
    name = package()

    with pytest.raises(ConfigurationError, match=f"no Python package '{name}.jobs'"):
        discovery.find(f"{name}.jobs", ["emails"])


def test_module_in_place_of_a_package_is_pointed_out(package: Package) -> None:
    name = package(emails=EMAILS)

    with pytest.raises(ConfigurationError, match="is a module; consumers must be a package"):
        discovery.find(f"{name}.emails")


def test_unknown_queue_names_the_modules_and_what_to_write(package: Package) -> None:
    name = package(emails=EMAILS, orders=ORDERS)

    with pytest.raises(ConfigurationError) as caught:
        discovery.find(name, ["new-reports"])

    assert str(caught.value) == (
        f"no consumer for queue 'new-reports' in package '{name}' (modules: emails, orders); "
        f"write {name}/new_reports.py with `consumer = Consumer('new-reports')`"
    )


@pytest.mark.parametrize("queue", ["", "../etc", "emails.welcome", "é", "os"])
def test_odd_queue_name_is_an_unknown_one(package: Package, queue: str) -> None:
    advice = r"write .*/os\.py" if queue == "os" else "must be one word"
    with pytest.raises(ConfigurationError, match=f"no consumer for queue.*{advice}"):
        discovery.find(package(emails=EMAILS), [queue])


def test_package_without_consumers_says_so(package: Package) -> None:
    name = package(helper="x = 1")

    with pytest.raises(ConfigurationError, match=f"package '{name}' declares no Consumer"):
        discovery.find(name)


def test_two_consumers_of_one_queue_are_refused(package: Package) -> None:
    name = package(emails=EMAILS, more=EMAILS)

    with pytest.raises(ConfigurationError, match="two consumers are declared for queue 'emails'"):
        discovery.find(name)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import unheard_of\n", r"ModuleNotFoundError: No module named 'unheard_of' \(.*emails\.py:1\)"),
        ("\n\n1 / 0\n", r"ZeroDivisionError: division by zero \(.*emails\.py:3\)"),
        ("def broken(:\n", r"SyntaxError: .*line 1"),
        ("from brokerjobs import Consumer\nConsumer('Emails')\n", r"queue 'Emails' must be one word"),
        ("from brokerjobs import Konsumer\n", r"ImportError: cannot import name 'Konsumer'"),
        ("raise SystemExit(3)\n", r"SystemExit: 3 \(.*emails\.py:1\)"),
    ],
)
def test_module_that_cannot_be_imported_says_why_and_where(
    package: Package, source: str, complaint: str
) -> None:
    name = package(emails=source)

    with pytest.raises(ConfigurationError, match=f"{name}.emails: {complaint}"):
        discovery.find(name, ["emails"])


def test_package_that_python_passes_over_for_a_namesake_elsewhere_is_refused(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = package(emails=EMAILS)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "here" / name).mkdir(parents=True)
    (tmp_path / "here" / name / "emails.py").write_text(EMAILS)
    monkeypatch.chdir(tmp_path / "here")

    with pytest.raises(ConfigurationError, match=f"make an empty {name}/__init__.py"):
        discovery.find(name, ["emails"])
    assert f"{name}.emails" not in sys.modules

    (tmp_path / "here" / name / "__init__.py").touch()
    del sys.modules[name]
    assert queues(name, "emails") == ["emails"]
