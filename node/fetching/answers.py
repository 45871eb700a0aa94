"""What archives answer, checked against what they were asked: some answer more, or something else.

Nothing that says whose a study is is asked for, and what comes unasked is not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any

from pydicom import Dataset

from node.fetching.model import (
    Answers,
    Found,
    FoundObject,
    FoundSeries,
    FoundStudy,
    Question,
    is_uid,
)

STUDY_KEYS = (
    "StudyInstanceUID",
    "StudyDate",
    "AccessionNumber",
    "StudyDescription",
    "ModalitiesInStudy",
    "NumberOfStudyRelatedInstances",
)
SERIES_KEYS = (
    "SeriesInstanceUID",
    "Modality",
    "SeriesNumber",
    "SeriesDescription",
    "Manufacturer",
    "NumberOfSeriesRelatedInstances",
)
OBJECT_KEYS = ("SOPInstanceUID", "SOPClassUID")
_MOST_TEXT = 64  # characters of a description


def studies_of(answers: Iterable[Dataset], question: Question) -> Answers[FoundStudy]:
    """The studies among answers to a question, each once."""
    return _checked(answers, lambda answer: _study(answer, question), "StudyInstanceUID")


def series_of(answers: Iterable[Dataset], study_instance_uid: str) -> Answers[FoundSeries]:
    """The series among answers that speak of this study."""

    def read(answer: Dataset) -> FoundSeries | None:
        if _text(answer, "StudyInstanceUID") not in (None, study_instance_uid):
            return None
        return FoundSeries(
            series_instance_uid=_text(answer, "SeriesInstanceUID") or "",
            modality=_text(answer, "Modality"),
            number=_number(answer, "SeriesNumber"),
            description=_text(answer, "SeriesDescription"),
            manufacturer=_text(answer, "Manufacturer"),
            instances=_number(answer, "NumberOfSeriesRelatedInstances"),
        )

    return _checked(answers, read, "SeriesInstanceUID")


def objects_of(
    answers: Iterable[Dataset], study_instance_uid: str, series_instance_uid: str
) -> Answers[FoundObject]:
    """The instances among answers that speak of this series."""

    def read(answer: Dataset) -> FoundObject | None:
        if _text(answer, "StudyInstanceUID") not in (None, study_instance_uid):
            return None
        if _text(answer, "SeriesInstanceUID") not in (None, series_instance_uid):
            return None
        sop_class = _text(answer, "SOPClassUID") or ""
        return FoundObject(
            series_instance_uid=series_instance_uid,
            sop_instance_uid=_text(answer, "SOPInstanceUID") or "",
            sop_class_uid=sop_class if is_uid(sop_class) else None,
        )

    return _checked(answers, read, "SOPInstanceUID")


def _checked(
    answers: Iterable[Dataset], read: Callable[[Dataset], Found | None], key: str
) -> Answers[Found]:
    found: dict[str, Found] = {}
    dropped = 0
    for answer in answers:
        uid = _text(answer, key)
        one = read(answer) if uid is not None and is_uid(uid) else None
        if one is None or uid is None:
            dropped += 1
        else:
            found.setdefault(uid, one)
    return Answers(found=tuple(found.values()), dropped=dropped)


def _study(answer: Dataset, question: Question) -> FoundStudy | None:
    study = FoundStudy(
        study_instance_uid=_text(answer, "StudyInstanceUID") or "",
        study_date=_date(answer),
        accession_number=_text(answer, "AccessionNumber"),
        description=_text(answer, "StudyDescription"),
        instances=_number(answer, "NumberOfStudyRelatedInstances"),
    )
    if question.study_instance_uid not in (None, study.study_instance_uid):
        return None
    if question.day not in (None, study.study_date):
        return None
    if question.accession_number not in (None, study.accession_number):
        return None
    modalities = _texts(answer, "ModalitiesInStudy")
    if question.modality is not None and modalities and question.modality not in modalities:
        return None
    return study


def _texts(answer: Dataset, keyword: str) -> tuple[str, ...]:
    value: Any
    try:
        value = answer.get(keyword)
    except Exception:  # noqa: BLE001 - a foreign value may fail in any way; it says nothing
        return ()
    if value is None or value == "":
        return ()
    many = value if isinstance(value, (list, tuple)) or hasattr(value, "append") else (value,)
    return tuple(text for one in many if (text := _plain(one)))


def _text(answer: Dataset, keyword: str) -> str | None:
    return next(iter(_texts(answer, keyword)), None)


def _plain(value: object) -> str:
    # Some pad UIDs with NUL, which stays where the value comes by another way than a file.
    shown = "".join(filter(str.isprintable, str(value)))
    return shown.strip()[:_MOST_TEXT].strip()


def _number(answer: Dataset, keyword: str) -> int | None:
    text = _text(answer, keyword) or ""
    return int(text) if text.isdecimal() else None


def _date(answer: Dataset) -> date | None:
    try:
        return datetime.strptime(_text(answer, "StudyDate") or "", "%Y%m%d").date()  # noqa: DTZ007
    except ValueError:
        return None
