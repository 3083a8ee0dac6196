"""What our documents say is so: their code runs, their lists are complete, their links lead somewhere."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import SecretStr

from brokerjobs import errors, outcome
from brokerjobs.cli import VERBS, cli, exits
from brokerjobs.durations import text as duration
from brokerjobs.message import _NUMBERS, _TEXTS, PREFIX
from brokerjobs.metrics import Metrics
from brokerjobs.settings import Settings
from tests.pages import MARKS, PAGES, PICTURES, ROOT, Block, blocks, is_same, named, write

BLOCKS = [block for page in PAGES for block in blocks(page)]
READER = """
import sys
from pathlib import Path
from brokerjobs.testing import recording

sys.path.insert(0, ".")
names = {"__name__": "__main__"}
with recording():
    for path in sys.argv[1:]:
        exec(compile(Path(path).read_text(), path, "exec"), names)
"""


def doc(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


# -- blocks


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_each_block_says_how_it_is_tested(block: Block) -> None:
    assert block.mark in MARKS or (not block.mark and block.language in PICTURES), f"<!-- {block.mark} -->"
    if block.mark == "by hand":
        digits, _, why = block.detail.partition(", ")
        assert why
        assert digits == block.digits, "the text has changed since somebody ran it: run it again"


@pytest.mark.parametrize("name", named(PAGES, "example", "file"))
def test_python_of_a_page_runs_without_a_broker(name: str, tmp_path: Path) -> None:
    page = blocks(ROOT / name)
    modules: list[str] = []
    tests: list[str] = []
    examples: list[Path] = []
    for block in page:
        if block.mark == "file":
            path = write(tmp_path, block)
            if path.suffix == ".py":
                kind = tests if path.name.startswith("test_") else modules
                kind.append(str(path.relative_to(tmp_path)))
        if block.mark == "example":
            examples.append(tmp_path / f"line_{block.line}.py")
            examples[-1].write_text(block.text)
    imports = tmp_path / "imports.py"
    imports.write_text("".join(f"import {name[:-3].replace('/', '.')}\n" for name in modules))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BROKERJOBS_")}

    def run(*command: str) -> None:
        ran = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout

    run("-W", "error", "-c", READER, str(imports), *map(str, examples))
    if tests:
        run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *tests)


def test_output_is_compared_line_by_line() -> None:
    found = ["took 1.25 s", "id 01a20128-3711-7fbb-94c1-85bb83e3b5e9", "a   b"]

    assert is_same(["took 3 s", "id 01a20128-3711-7fbb-94c1-85bb83e3b5e0", "a b"], found)
    assert is_same(["…", "a …"], found)
    assert not is_same(["took 3 s", "a b"], found)
    assert not is_same(["took 3 s", "…", "a c"], found)


# -- links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), target


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_each_page_can_be_found_from_the_readme() -> None:
    seen, unread = set(), [ROOT / "README.md"]
    while unread:
        page = unread.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
        unread += [(page.parent / target).resolve() for target in targets if "://" not in target]

    assert set(PAGES) <= seen


# -- lists that must be complete


def test_configuration_lists_every_setting() -> None:
    table = "\n".join(
        f"| `{name}` | `BROKERJOBS_{name.upper()}` | {shown_default(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    )

    assert table in doc("configuration.md"), f"the table should be:\n{table}"


def shown_default(field: Any) -> str:
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, float):
        value = duration(value)
    return f"`{value}`" if value not in ("", None, ()) else "none"


def commands(group: click.Group = cli, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from commands(found, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", found


def test_cli_lists_every_verb_and_option() -> None:
    page = doc("cli.md")
    sections = dict(
        re.findall(r"^## `brokerjobs (\w+).*?`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    )
    shared = page.partition("## Options of several verbs")[2].partition("\n## ")[0]

    assert set(sections) == set(VERBS)
    for name, command in commands():
        section = sections[name.split()[0]] + shared
        assert f"`{name.split()[-1]}" in section or name in sections, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                longest = max(parameter.opts, key=len)
                assert re.search(rf"{longest}(?![\w-])", section), f"{name} {longest}"


def test_cli_lists_every_exit_code() -> None:
    codes = {value for name, value in vars(exits).items() if name.isupper()}
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", doc("cli.md"), re.MULTILINE)}

    assert listed == codes


def test_operations_list_every_metric() -> None:
    listed = set(re.findall(r"^\| `(brokerjobs_\w+)`", doc("operations.md"), re.MULTILINE))
    real = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in Metrics().registry.collect()
    }

    assert listed == real


def test_operations_list_every_log_event() -> None:
    listed = set(
        re.findall(r"^\| `([^`]+)` \| (?:debug|info|warning|error)", doc("operations.md"), re.MULTILINE)
    )

    assert listed == set(events())


def events() -> Iterator[str]:
    """The events that the package logs; `…` stands for what is filled in."""
    for path in ROOT.glob("brokerjobs/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("debug", "info", "warning", "error", "exception")
                and ast.unparse(node.func.value) in ("log", "logs.log", "self._log")
            ):
                yield said(node.args[0])


def said(argument: ast.expr) -> str:
    match argument:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
    raise AssertionError(ast.unparse(argument))


def test_wire_format_lists_every_header() -> None:
    listed = set(re.findall(rf"^\| `{PREFIX}([a-z-]+)`", doc("wire-format.md"), re.MULTILINE))

    assert listed == {*_NUMBERS, *_TEXTS}


def test_wire_format_lists_every_reason() -> None:
    known = re.search(r"reason: ([\w, \n]+)\.", inspect.getdoc(outcome.DeadLettered) or "")
    assert known
    reasons = {word.strip() for word in known[1].split(",")}
    listed = set(
        re.findall(r"^\| `(\w+)` \| ", doc("wire-format.md").partition("## What is refused")[2], re.MULTILINE)
    )

    assert reasons <= listed


def test_jobs_lists_every_error_of_a_send() -> None:
    page = doc("jobs.md")
    for name, cls in vars(errors).items():
        if inspect.isclass(cls) and issubclass(cls, errors.PublishRefused | errors.PublishUnknown):
            assert f"`{name}`" in page


def test_changelog_has_a_head_for_what_is_not_released() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_architecture_names_files_that_exist() -> None:
    page = doc("architecture.md")
    for name in re.findall(r"`((?:\w+/)*\w+(?:\.py|/))`", page):
        if name != "brokerjobs/":
            assert (ROOT / "brokerjobs" / name).exists(), name
    modules = {path.stem for path in (ROOT / "brokerjobs").iterdir() if not path.name.startswith("_")}
    drawn = page.partition("## Layers")[2].partition("```text")[2].partition("```")[0]
    assert modules - {"py", "rabbitmq"} <= set(re.findall(r"\w+", drawn))
