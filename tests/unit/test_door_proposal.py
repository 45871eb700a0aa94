"""What is taken out of a request to associate is refused as the library would refuse it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from node.doors.contexts import COMMITMENT_CLASS
from node.doors.proposal import Grant, Proposals, Shortened
from node.doors.scp import DimseDoor
from node.intake import Intake, Status
from node.sections import DimseSettings
from storage.database import Database
from storage.files import FolderStore
from tests.raw_peer import (
    ASSOCIATE_AC,
    EXPLICIT,
    IMPLICIT,
    P_DATA,
    ULTRASOUND,
    VERIFICATION,
    RawPeer,
    associate_request,
    data,
    pdata,
    status_of,
    store_request,
)

MAMMOGRAPHY, MAGNETIC = "1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
JPEG = "1.2.840.10008.1.2.4.50"
STILL = "1.2.840.10008.5.1.4.1.1.6.1"
PROPOSED = (MAGNETIC, ULTRASOUND, MAMMOGRAPHY, VERIFICATION, MAGNETIC)

PROPOSALS = Proposals(
    {ULTRASOUND: [IMPLICIT, EXPLICIT], STILL: [IMPLICIT], VERIFICATION: [IMPLICIT]},
    {ULTRASOUND, STILL},
)


@pytest.fixture
def port(database: Database, tmp_path: Path) -> Iterator[int]:
    files = FolderStore(tmp_path)
    door = DimseDoor(DimseSettings(port=0), Intake(database, files), str(files.incoming_folder))
    door.start()
    yield door.port
    door.stop()


def answer(port: int, request: bytes) -> tuple[int, bytes]:
    with RawPeer(port) as peer:
        peer.send(request)
        return peer.receive()


@pytest.mark.parametrize(
    "proposed",
    [
        PROPOSED,
        (ULTRASOUND, STILL, VERIFICATION, STILL),
        (VERIFICATION, ULTRASOUND),
        (COMMITMENT_CLASS, ULTRASOUND, STILL),
        (MAGNETIC,),
        (ULTRASOUND,),
    ],
)
def test_the_answer_is_the_same_as_without_it(
    port: int, monkeypatch: pytest.MonkeyPatch, proposed: Sequence[str]
) -> None:
    ours = [answer(port, associate_request(proposed)) for _ in range(2)]  # anew, and remembered
    monkeypatch.setattr(Proposals, "shorten", lambda _self, request: Shortened(request))
    theirs = answer(port, associate_request(proposed))

    assert theirs[0] == ASSOCIATE_AC
    assert ours == [theirs] * 2


def test_an_object_is_taken_on_a_context_that_the_library_has_not_seen(port: int) -> None:
    with RawPeer(port) as peer:
        peer.send(associate_request((ULTRASOUND, STILL, ULTRASOUND)))
        assert peer.receive()[0] == ASSOCIATE_AC
        asked = store_request(context=5)
        command = asked[12:]
        # By the lane, and by the library, which takes what is put in pieces.
        for request in (asked, pdata(5, 1, command[:20]) + pdata(5, 3, command[20:])):
            peer.send(request + data(5, b"no data set", last=True))
            kind, said = peer.receive()
            assert (kind, status_of(said)) == (P_DATA, Status.CANNOT_UNDERSTAND)


def test_what_needs_thought_is_left() -> None:
    shown, answers, granted = PROPOSALS.shorten(associate_request((*PROPOSED, ULTRASOUND)))
    assert MAMMOGRAPHY.encode() not in shown
    assert (shown.count(ULTRASOUND.encode()), shown.count(VERIFICATION.encode())) == (1, 1)
    assert answers.count(b"\x21\0") == 4
    assert granted == (Grant(11, ULTRASOUND, IMPLICIT),)
    assert int.from_bytes(shown[2:6], "big") == len(shown) - 6


@pytest.mark.parametrize("proposed", [(ULTRASOUND, STILL), (MAGNETIC,), (VERIFICATION, STILL)])
def test_a_class_that_is_not_plain_or_has_no_syntax_in_common_is_left_to_the_library(
    proposed: Sequence[str],
) -> None:
    proposals = Proposals({ULTRASOUND: [JPEG], STILL: [JPEG], VERIFICATION: [EXPLICIT]}, {STILL})
    request = associate_request(proposed)
    assert proposals.shorten(request) == Shortened(request)


def test_what_is_put_in_an_unusual_way_is_left_to_the_library() -> None:
    request = associate_request((MAGNETIC, ULTRASOUND, ULTRASOUND))
    context = request.index(b"\x20\0", 74)
    for odd in (
        request[:-1],
        request.replace(b"\x30\0", b"\x31\0"),
        request[: context + 4] + b"\x05" + request[context + 5 :],  # an ID comes twice
    ):
        assert PROPOSALS.shorten(odd) == Shortened(odd)


def test_where_roles_are_asked_for_nothing_is_granted_beside_the_library() -> None:
    request = associate_request((ULTRASOUND, ULTRASOUND))
    role = b"\x54\0\0\x04abcd"
    user = request.index(b"\x50\0")
    length = int.from_bytes(request[user + 2 : user + 4], "big") + len(role)
    items = request[6:user] + b"\x50\0" + length.to_bytes(2, "big") + request[user + 4 :] + role
    asked = request[:2] + len(items).to_bytes(4, "big") + items
    assert PROPOSALS.shorten(request).granted
    assert PROPOSALS.shorten(asked) == Shortened(asked)
