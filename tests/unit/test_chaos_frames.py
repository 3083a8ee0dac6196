"""Where frames begin, whatever the pieces in which they arrive."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.frames import GREETING, HEADER, Frames, flipped


def frame(payload: bytes) -> bytes:
    return b"\x01\x00\x01" + len(payload).to_bytes(4) + payload + b"\xce"


@given(payloads=st.lists(st.binary(max_size=300), max_size=10), cuts=st.lists(st.integers(1, 200)))
def test_frames_are_followed_through_any_pieces(payloads: list[bytes], cuts: list[int]) -> None:
    greeting, starts, stream = bytes(GREETING), [], bytes(GREETING)
    for payload in payloads:
        starts.append(len(stream))
        stream += frame(payload)
    frames, found, at = Frames(len(greeting)), [], 0
    while at < len(stream):
        size = cuts.pop() if cuts else len(stream)
        found += [at + start for start in frames.starts(stream[at : at + size])]
        at += size
    assert found == starts


def test_a_flip_changes_a_size_and_nothing_else() -> None:
    chunk = frame(b"abc") + frame(b"defg")
    spoilt = flipped(chunk, Frames().starts(chunk))
    assert spoilt is not None
    assert [at for at in range(len(chunk)) if spoilt[at] != chunk[at]] == [HEADER - 1]
    assert flipped(chunk[: HEADER - 1], [0]) is None
    assert flipped(chunk, []) is None
