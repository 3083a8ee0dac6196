"""Find consumers: `brokerjobs consume emails` means the module `consumers.emails` and the Consumer in it."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from brokerjobs.consumer import Consumer
from brokerjobs.errors import ConfigurationError
from brokerjobs.topology import check_word


def find(package: str, queues: Sequence[str] = ()) -> list[Consumer]:
    """The consumers of these queues, in that order; all of the package's where none are named.

    Args:
        package: a Python package such as `consumers` or `shop.jobs`, looked up from the working folder too.
        queues: names of queues; each is first looked for in the module of that name.

    Raises:
        ConfigurationError: a queue has no consumer, a module cannot be imported, or two consumers have one queue.
    """
    _see_working_folder()
    modules = _modules(package)
    if not queues:
        consumers = [consumer for name in modules for consumer in _consumers_in(_load(f"{package}.{name}"))]
        if not consumers:
            raise ConfigurationError(f"package {package!r} declares no Consumer")
        return list(_by_queue(consumers).values())
    return [_find_one(package, queue, modules) for queue in dict.fromkeys(queues)]


def home_of(consumer: Consumer, package: str) -> str | None:
    """The module from which another process can import this consumer; None where there is none.

    Args:
        consumer: declared in a module, or else inside a function or in the program itself.
        package: whose modules are preferred where several hold it.
    """
    homes = [
        name
        for name, module in list(sys.modules.items())
        if name != "__main__" and any(value is consumer for value in list(vars(module).values()))
    ]
    return min(homes, key=lambda name: (not name.startswith(package + "."), len(name)), default=None)


def _see_working_folder() -> None:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _modules(package: str) -> list[str]:
    found = _load(package)
    if not hasattr(found, "__path__"):
        raise ConfigurationError(
            f"{package!r} is a module; consumers must be a package (a folder of modules)"
        )
    _refuse_namesake(package, list(found.__path__))
    return sorted(
        module.name for module in pkgutil.iter_modules(found.__path__) if not module.name.startswith("_")
    )


def _refuse_namesake(package: str, imported: Sequence[str]) -> None:
    """Raises ConfigurationError where Python passes over the package in the working folder for another of its name.

    It does so for a folder without `__init__.py`, wherever on its path a package with one lies.
    """
    here = Path.cwd().joinpath(*package.split("."))
    if any(here.glob("*.py")) and not any(here.samefile(path) for path in imported if Path(path).exists()):
        raise ConfigurationError(
            f"{package} in {Path.cwd()} is not what Python imports by that name, which is {imported[0]}: "
            f"make an empty {here.relative_to(Path.cwd()) / '__init__.py'}"
        )


def _find_one(package: str, queue: str, modules: list[str]) -> Consumer:
    namesake = queue.replace("-", "_")
    # The namesake first: one broken neighbour must not stop this queue.
    for name in sorted(modules, key=lambda module: module != namesake):
        for consumer in _consumers_in(_load(f"{package}.{name}")):
            if consumer.queue == queue:
                return consumer
    try:
        check_word(queue, "queue")
        advice = f"write {package.replace('.', '/')}/{namesake}.py with `consumer = Consumer({queue!r})`"
    except ConfigurationError as error:
        advice = str(error)
    raise ConfigurationError(
        f"no consumer for queue {queue!r} in package {package!r} "
        f"(modules: {', '.join(modules) or 'none'}); {advice}"
    )


def _load(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigurationError(
                f"there is no Python package {error.name!r} here: run in the folder that holds it, "
                "or say where with --consumers PACKAGE"
            ) from None
        raise _broken(name, error) from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> ConfigurationError:
    frames = traceback.extract_tb(error.__traceback__)
    place = next(
        (f" ({frame.filename}:{frame.lineno})" for frame in reversed(frames) if _is_users(frame.filename)), ""
    )
    return ConfigurationError(f"cannot import {name}: {type(error).__name__}: {error}{place}")


def _is_users(filename: str) -> bool:
    return (
        not filename.startswith("<")
        and str(Path(__file__).parent) not in filename
        and "importlib" not in filename
    )


def _consumers_in(module: ModuleType) -> list[Consumer]:
    found = {id(value): value for value in vars(module).values() if isinstance(value, Consumer)}
    return list(found.values())


def _by_queue(consumers: list[Consumer]) -> dict[str, Consumer]:
    by_queue: dict[str, Consumer] = {}
    for consumer in consumers:
        if by_queue.setdefault(consumer.queue, consumer) is not consumer:
            raise ConfigurationError(f"two consumers are declared for queue {consumer.queue!r}")
    return by_queue
