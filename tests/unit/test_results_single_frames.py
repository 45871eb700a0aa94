"""Single frames of a cine, for an archive that refuses its class: which, and how they are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage

from models.explain.panels import FrameMark, MarkKind
from node.results import EncodedObject, ResultError, check_object
from node.results.capture import MOST_SINGLE_FRAMES, single_frames
from tests.results_examples import capture_of, picture, put_bytes, read, source_header, study_report

ED, ES, STRONGEST = MarkKind
TIMES = tuple(40.0 * at for at in range(12))


def _cine(
    *marks: tuple[int, MarkKind], poster: int = 0, header: Dataset | None = None, **changes: object
) -> EncodedObject:
    shown = replace(
        picture(TIMES),
        marks=tuple(FrameMark(position=at, kind=kind) for at, kind in marks),
        poster_position=poster,
    )
    return capture_of(source_header(1) if header is None else header, replace(shown, **changes))  # type: ignore[arg-type]


def _source_frames(made: Sequence[EncodedObject]) -> list[int]:
    return [int(read(each).SourceImageSequence[0].ReferencedFrameNumber) for each in made]


def test_the_cine_itself_points_at_the_frames_to_look_at_alone() -> None:
    cine = read(_cine((6, ES), (2, ED), (9, STRONGEST), poster=2))
    assert cine.RepresentativeFrameNumber == 3
    assert list(cine.FrameNumbersOfInterest) == [3, 7, 10]
    assert list(cine.FrameOfInterestType) == ["ENDDIASTOLE", "ENDSYSTOLE", "STRONGEST"]
    assert cine["FrameOfInterestDescription"].VM == 3


def test_diastole_systole_and_the_strongest_map_become_frames_of_their_own() -> None:
    cine = _cine((2, ED), (6, ES), (9, STRONGEST))
    made = single_frames(cine.data)
    assert [check_object(each) for each in made] == [(), (), ()]
    # The example's cine shows every second frame of its source.
    assert _source_frames(made) == [5, 13, 19]
    whole = read(cine)
    for each, number in zip(made, (3, 7, 10), strict=True):
        single = read(each)
        assert single.SOPClassUID == SecondaryCaptureImageStorage
        assert each.transfer_syntax_uid == JPEGBaseline8Bit
        assert "NumberOfFrames" not in single
        assert get_frame(single.PixelData, 0, number_of_frames=1) == get_frame(
            whole.PixelData, number - 1, number_of_frames=12
        )
        assert single.DerivationDescription.startswith(f"Frame {number} of 12: ")
        assert single.SeriesInstanceUID == whole.SeriesInstanceUID
    assert len({read(each).InstanceNumber for each in (cine, *made)}) == 4


def test_the_beat_that_tells_most_goes_before_others_and_there_are_few() -> None:
    beats = ((0, ED), (2, ES), (4, ED), (6, ES), (8, ED), (10, ES), (7, STRONGEST))
    made = single_frames(_cine(*beats, poster=4).data)
    assert len(made) == MOST_SINGLE_FRAMES
    assert {9, 13, 15} <= set(_source_frames(made))
    assert _source_frames(single_frames(_cine(*beats, poster=4).data, most=1)) == [9]


def test_a_frame_that_is_two_things_is_made_once_and_one_that_nobody_marked_is_the_poster() -> None:
    (both,) = single_frames(_cine((3, ES), (3, STRONGEST)).data)
    assert "smallest; " in read(both).DerivationDescription
    assert _source_frames(single_frames(_cine(poster=5).data)) == [11]


def test_the_same_cine_gives_the_same_bytes_and_other_cines_other_uids() -> None:
    first = single_frames(_cine((2, ED), (6, ES)).data)
    assert single_frames(_cine((2, ED), (6, ES)).data) == first
    other = single_frames(_cine((2, ED), (6, ES), header=source_header(2)).data)
    uids = [each.ref.sop_instance_uid for each in (*first, *other)]
    assert len(set(uids)) == 4


def test_a_name_in_bytes_that_nobody_can_read_is_copied_as_it_is() -> None:
    header = source_header(1)
    put_bytes(header, "PatientName", b"\xff\xfe^odd")
    (single,) = single_frames(_cine((2, ED), header=header).data)
    assert read(single).get_item("PatientName").value.rstrip() == b"\xff\xfe^odd"


def test_what_is_no_cine_is_refused() -> None:
    with pytest.raises(ResultError, match="no multi-frame"):
        single_frames(study_report().data)
    with pytest.raises(ResultError, match="read back"):
        single_frames(b"no object at all")
