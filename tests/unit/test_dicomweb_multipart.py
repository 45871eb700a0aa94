"""A multipart body, however it comes in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.web.dicomweb.media import MediaError, parse_accept, parse_media, wanted
from node.web.dicomweb.multipart import (
    MultipartError,
    MultipartReader,
    PartBegins,
    PartData,
    PartEnds,
)


def read(body: bytes, pieces: int = 1 << 30) -> list[tuple[dict[str, str], bytes]]:
    """The parts of a body that comes in pieces of this size."""
    reader = MultipartReader("b")
    found: list[tuple[dict[str, str], bytes]] = []
    header: dict[str, str] = {}
    data: list[bytes] = []
    for start in range(0, len(body), pieces):
        for event in reader.feed(body[start : start + pieces]):
            if isinstance(event, PartBegins):
                header, data = dict(event.header), []
            elif isinstance(event, PartData):
                data.append(event.data)
            else:
                assert isinstance(event, PartEnds)
                found.append((header, b"".join(data)))
    reader.finish()
    return found


BODY = (
    b"preamble\r\n--b\r\nContent-Type: application/dicom\r\nX: 1\r\n folded\r\n\r\none\r\n--bx\r\n"
    b"--b \t\r\n\r\n\r\n--b\r\nA: \r\n\r\n\r\n--\r\n--b--\r\nepilogue --b\r\n"
)
PARTS = [
    ({"content-type": "application/dicom", "x": "1 folded"}, b"one\r\n--bx"),
    ({}, b""),
    ({"a": ""}, b"\r\n--"),
]


@pytest.mark.parametrize("pieces", [1, 2, 3, 5, 7, 1000])
def test_the_parts_are_the_same_in_whatever_pieces_they_come(pieces: int) -> None:
    assert read(BODY, pieces) == PARTS


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([b"\r", b"\n", b"--b", b"-", b"b", b"x\0"])), max_size=3),
    st.integers(1, 9),
)
def test_what_is_put_together_is_taken_apart(bodies: list[list[bytes]], pieces: int) -> None:
    contents = [b"".join(parts).replace(b"\r\n--b", b"") for parts in bodies]
    contents = [b"" if body.startswith((b"\n", b"--b")) else body for body in contents]
    whole = b"".join(b"--b\r\n\r\n" + body + b"\r\n" for body in contents) + b"--b--"

    assert [body for _, body in read(whole, pieces)] == contents


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "holds no part"),
        (b"no boundary anywhere", "holds no part"),
        (b"x" * 70_000, "does not come"),
        (b"--b\r\n\r\nhalf", "cut off"),
        (b"--b\r\n\r\nwhole\r\n--b", "cut off"),
        (b"--b\r\nContent-Type: application/dicom", "cut off"),
        (b"--b\r\nno colon\r\n\r\nx\r\n--b--", "without a name"),
        (b"--b\r\n: nameless\r\n\r\nx\r\n--b--", "without a name"),
        (b"--b\r\nA: " + b"x" * 20_000 + b"\r\n\r\nx\r\n--b--", "more than 16384 bytes"),
    ],
)
def test_a_broken_body_is_told(body: bytes, words: str) -> None:
    for pieces in (3, 1 << 20):
        with pytest.raises(MultipartError, match=words):
            read(body, pieces)


def test_nothing_of_a_part_is_held() -> None:
    reader = MultipartReader("b")
    list(reader.feed(b"--b\r\n\r\n"))

    events = list(reader.feed(bytes(1 << 20)))
    given = sum(len(event.data) for event in events if isinstance(event, PartData))

    assert given > (1 << 20) - 16


@pytest.mark.parametrize("boundary", ["", "x" * 71, 'quo"te', "ends in blank ", "ü"])
def test_a_boundary_that_is_none_is_refused(boundary: str) -> None:
    with pytest.raises(MultipartError, match="boundary"):
        MultipartReader(boundary)


def test_media_types_are_read_with_what_they_say() -> None:
    media = parse_media('Multipart/Related; TYPE="application/dicom";boundary="a;b,\\"c" ; x=1')

    assert media.name == "multipart/related"
    assert media.parameters == {"type": "application/dicom", "boundary": 'a;b,"c', "x": "1"}


@pytest.mark.parametrize("text", ["", "text", "a/b, c/d", "a/b c", "a/b; =", "a/b" * 5000, ",,"])
def test_what_is_no_media_type_is_refused(text: str) -> None:
    with pytest.raises(MediaError):
        parse_media(text)


def test_what_is_wanted_most_comes_first() -> None:
    takes = wanted(
        parse_accept(
            'image/png;q=0.2, multipart/related; type="application/octet-stream"; '
            "transfer-syntax=*, image/jpeg; q=0, */*;q=0.1"
        )
    )

    assert [(item.name, item.multipart, item.syntax) for item in takes] == [
        ("application/octet-stream", True, "*"),
        ("image/png", False, None),
        ("*", True, None),
        ("*", False, None),
    ]
    assert [item.name for item in wanted([])] == ["*", "*"]
