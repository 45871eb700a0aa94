"""The lane says and writes what the library would; what is unusual is left to the library."""

from __future__ import annotations

import hashlib
import random
from io import BytesIO
from pathlib import Path

import pydicom.data
import pytest
from pynetdicom.dimse_messages import C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import create_file_meta, write_file_meta_info
from pynetdicom.pdu import P_DATA_TF

from models.clip import ClipError, read_header
from node.doors.glance import glance, glance_of
from node.doors.incoming import IncomingFile
from node.doors.lane import Lane, LaneError, StoreRequest, file_head, store_answer
from tests.raw_peer import EXPLICIT, ULTRASOUND, data, echo_request, store_request
from tests.running_node import LONG_CINE, REAL_CINE

_PDU_HEAD = 6
REQUEST = StoreRequest(
    context_id=1, message_id=7, sop_class_uid=ULTRASOUND, sop_instance_uid="1.2.34"
)


class Served:
    """A lane whose objects are kept here."""

    def __init__(self, folder: Path) -> None:
        self.objects: list[tuple[StoreRequest, bytes, str | None]] = []
        self._folder = folder
        self.lane = Lane({1: EXPLICIT}.get, self._file, self._serve)

    def _file(self) -> IncomingFile:
        return IncomingFile(self._folder, lambda: None)

    def _serve(self, request: StoreRequest, file: IncomingFile) -> None:
        self.objects.append((request, file.path.read_bytes(), file.content_sha256))
        file.discard()

    def take(self, *pdus: bytes) -> bytes | None:
        """All items of some PDUs, as if they had come in one."""
        rest = self.lane.take(memoryview(b"".join(pdu[_PDU_HEAD:] for pdu in pdus)))
        return None if rest is None else bytes(rest)


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path)


def test_the_head_of_a_file_is_the_librarys() -> None:
    theirs = BytesIO()
    meta = create_file_meta(
        sop_class_uid=ULTRASOUND,  # type: ignore[arg-type]
        sop_instance_uid="1.2.345",  # type: ignore[arg-type]
        transfer_syntax=EXPLICIT,  # type: ignore[arg-type]
    )
    write_file_meta_info(theirs, meta)
    assert file_head(ULTRASOUND, "1.2.345", EXPLICIT) == bytes(128) + b"DICM" + theirs.getvalue()


@pytest.mark.parametrize("comment", ["", "cannot be kept now, try again"])
@pytest.mark.parametrize("longest", [0, 16384, 64])
def test_the_answer_is_the_librarys(comment: str, longest: int) -> None:
    answer = C_STORE()
    answer.MessageIDBeingRespondedTo = REQUEST.message_id
    answer.AffectedSOPClassUID = REQUEST.sop_class_uid
    answer.AffectedSOPInstanceUID = REQUEST.sop_instance_uid
    answer.Status = 0xA700 if comment else 0x0000
    if comment:
        answer.ErrorComment = comment
    message = C_STORE_RSP()
    message.primitive_to_message(answer)
    theirs = [P_DATA_TF(part).encode() for part in message.encode_msg(1, longest)]

    assert list(store_answer(REQUEST, answer.Status, comment, longest)) == theirs


def test_an_object_in_pieces_is_served_once_whole(served: Served) -> None:
    assert served.take(store_request(uid="1.2.34"), data(1, b"one ")) is None
    assert served.lane.is_taking
    assert served.take(data(1, b"two", last=True)) is None

    ((request, written, digest),) = served.objects
    assert request.sop_instance_uid == "1.2.34"
    assert written == file_head(ULTRASOUND, "1.2.34", EXPLICIT) + b"one two"
    assert digest == hashlib.sha256(b"one two").hexdigest()
    assert not served.lane.is_taking


def test_what_comes_behind_an_object_in_the_same_pdu_is_left(served: Served) -> None:
    echo = echo_request()
    rest = served.take(store_request(), data(1, b"", last=True), store_request(5), echo)

    assert len(served.objects) == 1
    assert rest == store_request(5)[_PDU_HEAD:] + echo[_PDU_HEAD:]  # context 5 is not accepted


@pytest.mark.parametrize(
    "request_pdu",
    [
        echo_request(),
        store_request(uid="1.2.x"),
        store_request(uid="1." * 40 + "1"),
        store_request()[:-9],
        store_request(context=3),
    ],
)
def test_what_is_unusual_is_left_as_it_came(served: Served, request_pdu: bytes) -> None:
    assert served.take(request_pdu) == request_pdu[_PDU_HEAD:]
    assert not served.lane.is_taking


@pytest.mark.parametrize("bad", [echo_request(), data(1, b"x")[:-1], bytes(_PDU_HEAD) + b"\0\0"])
def test_what_cannot_follow_ends_it(served: Served, bad: bytes) -> None:
    served.take(store_request())
    with pytest.raises(LaneError):
        served.take(bad)


def test_no_bytes_whatever_break_it_otherwise(tmp_path: Path) -> None:
    chance = random.Random(5)  # noqa: S311 - makes broken bytes
    whole = b"".join(
        pdu[_PDU_HEAD:] for pdu in (store_request(), data(1, b"abc"), data(1, b"d", last=True))
    )
    for _ in range(500):
        broken = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        served = Served(tmp_path)
        try:
            served.lane.take(memoryview(broken))
        except LaneError:
            continue


def test_a_glance_sees_what_the_whole_header_says() -> None:
    shipped = Path(pydicom.data.__file__).parent / "test_files"
    paths = [LONG_CINE, REAL_CINE, *shipped.glob("*.dcm")]
    seen = 0
    for path in paths:
        with path.open("rb") as file:
            looked = glance(file.read(1 << 16), path.stat().st_size)
        if looked is None:
            continue
        seen += 1
        assert looked == glance_of(read_header(path)), path.name
    assert glance(LONG_CINE.read_bytes()[: 1 << 16], LONG_CINE.stat().st_size) is not None
    assert seen > len(paths) // 4


def test_a_glance_at_a_broken_file_says_nothing_that_the_whole_does_not(tmp_path: Path) -> None:
    chance = random.Random(7)  # noqa: S311 - makes broken bytes
    whole = REAL_CINE.read_bytes()
    path = tmp_path / "broken.dcm"
    for _ in range(150):
        broken = bytearray(whole[: 1 << 14])
        broken[chance.randrange(132, 3000)] = chance.randrange(256)
        looked = glance(bytes(broken), len(whole))
        if looked is None:
            continue
        path.write_bytes(bytes(broken) + whole[1 << 14 :])
        try:
            assert looked == glance_of(read_header(path))
        except ClipError:
            pytest.fail("the whole header cannot be read")
