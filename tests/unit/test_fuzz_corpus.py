"""What the fuzzer found worth keeping, again; without the fuzzer."""

from __future__ import annotations

import pytest

from tests.fuzz import corpus
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_whatever_comes_is_read_as_the_library_reads_it_or_told(target: str) -> None:
    assert corpus.kept(target)
    for data in [*SEEDS[target], *corpus.kept(target)]:
        try:
            TARGETS[target](data)
        except Exception as error:
            pytest.fail(f"{target}({data!r}): {error!r}")
