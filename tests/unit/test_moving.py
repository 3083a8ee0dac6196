"""What a command says that has moved dead letters."""

from __future__ import annotations

import pytest

from brokerjobs.cli import moving
from brokerjobs.errors import AccessRefused, BrokerUnreachable


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AccessRefused("no"), ""),
        (BrokerUnreachable("gone"), "it is done, but workers could not be told, to log it: gone\n"),
    ],
)
async def test_who_cannot_speak_to_workers_has_moved_them_all_the_same(
    capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    async def tell(count: int) -> None:
        raise error

    await moving._tell(tell, 3)

    assert capsys.readouterr().err == said
