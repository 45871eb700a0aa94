"""A Key Object Selection points at the clips that were read and at the pictures made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom.uid import KeyObjectSelectionDocumentStorage

from node.results import ClipResult, EncodedObject, ResultError, build_key_object, check_object
from tests.results_examples import (
    CREATED_AT,
    SETTINGS,
    read,
    source_header,
    study_clips,
    study_page,
)


def _made(clips: tuple[ClipResult, ...] | None = None, revision: int = 1) -> EncodedObject:
    return build_key_object(
        study_clips() if clips is None else clips,
        [study_page().ref],
        revision=revision,
        settings=SETTINGS,
        created_at=CREATED_AT,
    )


def _images(made: EncodedObject) -> list[str]:
    return [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in read(made).ContentSequence
        if item.ValueType == "IMAGE"
    ]


def test_it_points_at_the_page_the_clip_that_was_read_and_its_cine_and_no_other() -> None:
    first, *others = study_clips()
    made = _made((first, *others))
    assert first.capture is not None
    assert check_object(made) == ()
    assert _images(made) == [
        study_page().ref.sop_instance_uid,
        first.header.SOPInstanceUID,
        first.capture.sop_instance_uid,
    ]
    dataset = read(made)
    assert dataset.SOPClassUID == KeyObjectSelectionDocumentStorage
    assert dataset.ConceptNameCodeSequence[0].CodeMeaning == "For Research"
    listed = {
        item.ReferencedSOPInstanceUID
        for study in dataset.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert listed == set(_images(made))


def test_the_same_study_gives_the_same_object_and_a_later_revision_another() -> None:
    assert _made().ref == _made().ref
    later = _made(revision=2).ref
    assert later.sop_instance_uid != _made().ref.sop_instance_uid
    assert later.series_instance_uid == _made().ref.series_instance_uid


def test_without_a_clip_that_was_read_there_is_nothing_to_point_at() -> None:
    unread = ClipResult(header=source_header(1), not_analysed="cannot be decoded")
    with pytest.raises(ResultError, match="nothing to point at"):
        _made((unread,))
    with pytest.raises(ResultError, match="revision 0"):
        _made(revision=0)


def test_a_clip_without_a_cine_is_pointed_at_alone() -> None:
    first = replace(study_clips()[0], capture=None)
    assert _images(_made((first,)))[1:] == [first.header.SOPInstanceUID]
