"""Server-sent events, however their bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.agent.models.sse import LONGEST_EVENT_BYTES, EventParser, EventTooLongError

LINE_ENDS = ("\n", "\r\n", "\r")
texts = st.text(alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)


def parsed(stream: bytes, cuts: list[int]) -> list[bytes]:
    parser = EventParser()
    places = [0, *sorted(cuts), len(stream)]
    parts = [stream[start:end] for start, end in pairwise(places)]
    return [data for part in parts for data in parser.feed(part)]


@given(st.lists(st.lists(texts, min_size=1, max_size=3)), st.data())
def test_the_events_are_those_that_were_sent_wherever_the_bytes_are_cut(
    sent: list[list[str]], data: st.DataObject
) -> None:
    stream = b""
    for lines in sent:
        end = data.draw(st.sampled_from(LINE_ENDS))
        space = data.draw(st.sampled_from(["", " "]))
        lines = [f"data:{space}{line}" if space else f"data: {line}" for line in lines]
        noise = data.draw(st.lists(st.sampled_from([": still here", "event: x", "id: 1", "retry", "x:y"])))
        stream += "".join(line + end for line in [*noise, *lines, ""]).encode()
    cuts = data.draw(st.lists(st.integers(0, len(stream))))
    assert parsed(stream, cuts) == ["\n".join(lines).encode() for lines in sent]


def test_every_single_cut_of_a_stream_gives_the_same_events() -> None:
    stream = "\ufeffdata: é→\r\n\r\n: c\r\ndata: 2\r\rdata: [DONE]\n\n".encode()
    expected = ["é→".encode(), b"2", b"[DONE]"]
    assert [parsed(stream, [cut]) for cut in range(len(stream) + 1)] == [expected] * (len(stream) + 1)
    assert parsed(stream, list(range(len(stream)))) == expected


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        pytest.param(b"data: 1\n", [], id="an event that has not ended"),
        pytest.param(b"data\n\n", [b""], id="a field without a colon"),
        pytest.param(b": only a comment\n\n", [], id="a comment alone is no event"),
        pytest.param(b"datax: 1\n\n", [], id="another field"),
        pytest.param(b"\n\n\n", [], id="empty lines"),
    ],
)
def test_what_is_an_event(stream: bytes, events: list[bytes]) -> None:
    assert parsed(stream, []) == events


@pytest.mark.parametrize("start", [b"data: ", b"", b": "])
def test_a_line_without_an_end_is_not_kept(start: bytes) -> None:
    parser = EventParser()
    assert list(parser.feed(start + b"x" * (LONGEST_EVENT_BYTES - len(start)))) == []
    with pytest.raises(EventTooLongError):
        list(parser.feed(b"x"))


def test_many_events_are_no_long_event() -> None:
    parser = EventParser()
    part = b": comment\n" + b"data: " + b"x" * 2**20 + b"\n\n"
    assert sum(len(list(parser.feed(part))) for _ in range(20)) == 20
