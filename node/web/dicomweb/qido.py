"""QIDO-RS: what is kept, as a search lists it (PS3.18 10.6).

The database rules out what it can: by UIDs, date and accession number. All else stands in the
files, of which one search reads so many anew and no more (``[dicomweb] search_reads``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydicom.datadict import dictionary_VR

from node.web.callers import Caller
from node.web.dicomweb.access import DOOR, ROOT, DicomRoute, Reader, Uid, base_url, files_of
from node.web.dicomweb.answers import data_sets
from node.web.dicomweb.matching import (
    EMPTY,
    Criterion,
    CriterionError,
    UnknownAttributeError,
    attribute_path,
    criterion,
    dates_of,
    matches,
)
from node.web.dicomweb.media import MediaError, parse_accept, wanted
from node.web.dicomweb.model import Json
from node.web.dicomweb.problems import bad_request
from node.web.dicomweb.summaries import (
    INSTANCE,
    INSTANCE_TOO,
    REMEMBERED,
    SERIES,
    SERIES_TOO,
    STUDY,
    STUDY_TOO,
    Reading,
    Summaries,
    TooManyFilesError,
)
from node.web.dicomweb.wado import model_type
from node.web.site import Parts, parts_of
from storage import catalog
from storage.catalog import HeldObject

router = APIRouter(prefix=ROOT, tags=["DICOMweb: search"], route_class=DicomRoute)

_STUDIES_AT_ONCE = 200
_NOT_ATTRIBUTES = frozenset(
    {
        "accept",
        "charset",
        "emptyvaluematching",
        "fuzzymatching",
        "includefield",
        "limit",
        "multiplevaluematching",
        "offset",
    }
)
_ALL = "all"
_DATE, _ACCESSION, _MODALITY = "00080020", "00080050", "00080060"
_MODALITIES, _CLASSES = "00080061", "00080062"
_STUDY_UID, _SERIES_UID, _INSTANCE_UID = "0020000D", "0020000E", "00080018"
_SERIES_COUNT, _OBJECTS_COUNT, _IN_SERIES_COUNT = "00201206", "00201208", "00201209"
_AVAILABILITY, _URL, _CLASS = "00080056", "00081190", "00080016"
_COUNTED = frozenset(
    {_MODALITIES, _CLASSES, _SERIES_COUNT, _OBJECTS_COUNT, _IN_SERIES_COUNT, _AVAILABILITY, _URL}
)

Limit = Annotated[int | None, Query(ge=0, description="Most matches to give.")]
Offset = Annotated[int, Query(ge=0, description="Matches to leave out at the beginning.")]
Fields = Annotated[
    list[str] | None, Query(description="Attributes to give besides, or `all`; commas between.")
]
Fuzzy = Annotated[bool, Query(description="Not done: matching is literal, and a Warning says so.")]
Accept = Annotated[str | None, Query(max_length=1000, description="In place of the header.")]

_summaries = Summaries()


class Level(StrEnum):
    """What a search lists."""

    STUDY = "studies"
    SERIES = "series"
    INSTANCE = "instances"


#: What each level has of its own, and what it has only where it is asked for.
_OWN = {Level.STUDY: STUDY, Level.SERIES: SERIES, Level.INSTANCE: INSTANCE}
_TOO = {Level.STUDY: STUDY_TOO, Level.SERIES: SERIES_TOO, Level.INSTANCE: INSTANCE_TOO}
_ORDER = list(Level)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A search, understood. ``within``: the levels that its path does not fix."""

    level: Level
    within: tuple[Level, ...]
    criteria: tuple[Criterion, ...]
    fields: frozenset[str]
    everything: bool
    ignored: bool  #: a parameter names no attribute, and is left out (PS3.18 8.3)
    studies: tuple[str, ...] | None
    series: tuple[str, ...] | None
    instances: tuple[str, ...] | None


@router.get("/studies")
def search_studies(
    request: Request,
    caller: Reader,
    limit: Limit = None,
    offset: Offset = 0,
    includefield: Fields = None,
    fuzzymatching: Fuzzy = False,
    accept: Accept = None,
) -> Response:
    """Studies. Attributes to match are parameters: `PatientName=Doe*`, `StudyDate=20260101-`."""
    asked = _asked(request, Level.STUDY, includefield)
    return _answer(request, caller, asked, limit, offset, accept, fuzzy=fuzzymatching)


@router.get("/series")
def search_series(
    request: Request,
    caller: Reader,
    limit: Limit = None,
    offset: Offset = 0,
    includefield: Fields = None,
    fuzzymatching: Fuzzy = False,
    accept: Accept = None,
) -> Response:
    """Series of any study."""
    asked = _asked(request, Level.SERIES, includefield)
    return _answer(request, caller, asked, limit, offset, accept, fuzzy=fuzzymatching)


@router.get("/instances")
def search_instances(
    request: Request,
    caller: Reader,
    limit: Limit = None,
    offset: Offset = 0,
    includefield: Fields = None,
    fuzzymatching: Fuzzy = False,
    accept: Accept = None,
) -> Response:
    """Objects of any study."""
    asked = _asked(request, Level.INSTANCE, includefield)
    return _answer(request, caller, asked, limit, offset, accept, fuzzy=fuzzymatching)


@router.get("/studies/{study}/series")
def search_series_of_study(
    request: Request,
    caller: Reader,
    study: Uid,
    limit: Limit = None,
    offset: Offset = 0,
    includefield: Fields = None,
    fuzzymatching: Fuzzy = False,
    accept: Accept = None,
) -> Response:
    """The series of a study."""
    asked = _asked(request, Level.SERIES, includefield, study=study)
    return _answer(request, caller, asked, limit, offset, accept, fuzzy=fuzzymatching)


@router.get("/studies/{study}/instances")
def search_instances_of_study(
    request: Request,
    caller: Reader,
    study: Uid,
    limit: Limit = None,
    offset: Offset = 0,
    includefield: Fields = None,
    fuzzymatching: Fuzzy = False,
    accept: Accept = None,
) -> Response:
    """The objects of a study."""
    asked = _asked(request, Level.INSTANCE, includefield, study=study)
    return _answer(request, caller, asked, limit, offset, accept, fuzzy=fuzzymatching)


@router.get("/studies/{study}/series/{series}/instances")
def search_instances_of_series(
    request: Request,
    caller: Reader,
    study: Uid,
    series: Uid,
    limit: Limit = None,
    offset: Offset = 0,
    includefield: Fields = None,
    fuzzymatching: Fuzzy = False,
    accept: Accept = None,
) -> Response:
    """The objects of a series."""
    asked = _asked(request, Level.INSTANCE, includefield, study=study, series=series)
    return _answer(request, caller, asked, limit, offset, accept, fuzzy=fuzzymatching)


# What is asked.


def _asked(
    request: Request,
    level: Level,
    fields: list[str] | None,
    *,
    study: str | None = None,
    series: str | None = None,
) -> Asked:
    criteria: list[Criterion] = []
    paths: list[tuple[str, ...]] = []
    ignored = False
    named = [name.strip() for field in fields or () for name in field.split(",")]
    try:
        for name, value in request.query_params.multi_items():
            if name not in _NOT_ATTRIBUTES:
                try:
                    criteria.append(criterion(name, value))
                except UnknownAttributeError:
                    ignored = True
        for name in named:
            if name and name != _ALL:
                try:
                    paths.append(attribute_path(name))
                except UnknownAttributeError:
                    ignored = True
    except CriterionError as error:
        raise bad_request(str(error)) from None
    if study is not None:
        criteria.append(Criterion(path=(_STUDY_UID,), vr="UI", value=study))
    if series is not None:
        criteria.append(Criterion(path=(_SERIES_UID,), vr="UI", value=series))
    below = _ORDER[_ORDER.index(level) + 1 :]
    for one in criteria:
        for lower in below:
            if one.path[0] in (*_OWN[lower], *_TOO[lower]):
                hint = "; ModalitiesInStudy can" if one.path[0] == _MODALITY else ""
                raise bad_request(f"{level} cannot be searched by an attribute of {lower}{hint}")
    fixed = {Level.STUDY} if study is not None else set()
    fixed |= {Level.SERIES} if series is not None else set()
    return Asked(
        level=level,
        within=tuple(one for one in _ORDER[: _ORDER.index(level) + 1] if one not in fixed),
        criteria=tuple(criteria),
        fields=frozenset(path[0] for path in paths),
        everything=_ALL in named,
        ignored=ignored,
        studies=_uids(criteria, _STUDY_UID),
        series=_uids(criteria, _SERIES_UID),
        instances=_uids(criteria, _INSTANCE_UID),
    )


def _uids(criteria: Sequence[Criterion], tag: str) -> tuple[str, ...] | None:
    """The UIDs that all criteria on an attribute leave; None where there is none."""
    found: set[str] | None = None
    for one in criteria:
        if one.path == (tag,) and one.value not in ("", EMPTY):
            listed = set(one.value.replace("\\", ",").split(","))
            found = listed if found is None else found & listed
    return None if found is None else tuple(sorted(found))


# What is answered.


def _answer(
    request: Request,
    caller: Caller,
    asked: Asked,
    limit: int | None,
    offset: int,
    accept: str | None,
    *,
    fuzzy: bool,
) -> Response:
    parts = parts_of(request)
    try:
        text = request.headers.get("accept", "") if accept is None else accept
        kind = model_type(wanted(parse_accept(text)))
    except MediaError as error:
        raise bad_request(f"Accept: {error}") from None
    settings = parts.settings.dicomweb
    most = settings.search_results if limit is None else min(limit, settings.search_results)
    reading = Reading(_summaries, files_of(request), settings.search_reads)
    search = _Search(parts, asked, reading, base_url(request))
    try:
        found = list(islice(search.run(), offset, offset + most + 1)) if most else []
    except TooManyFilesError:
        if search.studies > REMEMBERED:
            raise HTTPException(
                413,
                f"{search.studies} studies are too many to search their files: name a StudyDate, "
                "an AccessionNumber or a UID, by which the database finds them",
            ) from None
        raise HTTPException(
            503,
            "so many files are not read for one search: name a StudyDate or a UID, or ask again, "
            "since what was read is remembered",
            {"retry-after": "1"},
        ) from None
    reading.most = None  # what matched is shown in any case
    names = "&".join(sorted({".".join(one.path) for one in asked.criteria}))
    parts.audit.queried(caller.peer, DOOR, f"{asked.level}?{names}")
    warnings = []
    if asked.ignored:
        warnings.append(
            f'299 {base_url(request)}: "Parameters that name no attribute were left out: there may '
            'be more results than were asked for."'
        )
    if fuzzy:
        warnings.append(
            f'299 {base_url(request)}: "The fuzzymatching parameter is not supported. Only '
            'literal matching has been performed."'
        )
    if len(found) > most:
        warnings.append(
            f'299 {base_url(request)}: "There are additional results that can be requested."'
        )
    headers = {"warning": ", ".join(warnings)} if warnings else {}
    return data_sets((search.shown(one) for one in found[:most]), kind, headers)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """A match: its level's objects, and the object whose file speaks for it."""

    study: str
    file_key: str
    objects: tuple[HeldObject, ...] = ()


class _Search:
    """One search.

    Raises
    ------
    TooManyFilesError
        From :meth:`run`, where it would read more files than it may.
    """

    def __init__(self, parts: Parts, asked: Asked, reading: Reading, root: str) -> None:
        self._parts = parts
        self._asked = asked
        self._reading = reading
        self._root = root
        self.studies = 0  # that the database could not rule out
        # What the database has decided is not asked of the files again.
        self._of_files = [one for one in asked.criteria if one.value and not _by_rows(one)]

    def run(self) -> Iterator[tuple[_Found, Json]]:
        """The matches, the newest study first; of each also what it says, where it was read."""
        asked = self._asked
        dates = [dates_of(one) for one in asked.criteria if one.path == (_DATE,) and one.value]
        numbers = [one for one in asked.criteria if one.path == (_ACCESSION,) and one.is_exact]
        with self._parts.database.read() as session:
            studies = catalog.held_studies(
                session,
                studies=asked.studies,
                series=asked.series,
                instances=asked.instances,
                first_date=max((low for low, _ in dates if low), default=None),
                last_date=min((high for _, high in dates if high), default=None),
                accession_number=numbers[0].value if numbers else None,
            )
        self.studies = len(studies)
        for start in range(0, len(studies), _STUDIES_AT_ONCE):
            batch = studies[start : start + _STUDIES_AT_ONCE]
            for found in self._candidates(batch):
                model = self._model(found)
                if model is not None:
                    yield found, model

    def _candidates(self, studies: Sequence[str]) -> Iterator[_Found]:
        asked = self._asked
        if asked.level is Level.STUDY:
            with self._parts.database.read() as session:
                first = catalog.first_files(session, studies)
            for one in first:
                yield _Found(study=one.study_instance_uid, file_key=one.file_key)
            return
        for study in studies:
            with self._parts.database.read() as session:
                objects = catalog.held_objects(
                    session, studies=[study], series=asked.series, instances=asked.instances
                )
            if asked.level is Level.INSTANCE:
                for item in objects:
                    yield _Found(study=study, file_key=item.file_key, objects=(item,))
                continue
            for of_series in _by_series(objects).values():
                yield _Found(study=study, file_key=of_series[0].file_key, objects=tuple(of_series))

    def _model(self, found: _Found) -> Json | None:
        """What a match says that the files must decide; None where it is none."""
        if not self._of_files:
            return {}
        counted = [one for one in self._of_files if one.path[0] in _COUNTED]
        model = dict(self._reading.summary(found.file_key))
        if any(
            one.path[0] not in (*STUDY, *STUDY_TOO, *SERIES, *SERIES_TOO, *INSTANCE, *INSTANCE_TOO)
            for one in self._of_files
            if one not in counted
        ):
            model = self._reading.whole(found.file_key)
        if not all(matches(model, one) for one in self._of_files if one not in counted):
            return None
        if counted:
            model |= self._counted(found)
            if not all(matches(model, one) for one in counted):
                return None
        return model

    def shown(self, match: tuple[_Found, Json]) -> Json:
        """A match as the answer has it."""
        found, _ = match
        asked = self._asked
        reading = self._reading
        summary = reading.summary(found.file_key)
        given: Json = {}
        for level in asked.within:
            for tag in _OWN[level]:
                given[tag] = summary.get(tag, {"vr": dictionary_VR(int(tag, 16)).split(" ")[0]})
            if asked.everything:
                given |= {tag: summary[tag] for tag in _TOO[level] if tag in summary}
        if asked.everything and asked.level is Level.INSTANCE:
            given |= reading.whole(found.file_key)
        lower = {
            tag
            for level in _ORDER[_ORDER.index(asked.level) + 1 :]
            for tag in (*_OWN[level], *_TOO[level])
        }
        wished = asked.fields | {one.path[0] for one in asked.criteria}
        missing = wished - set(given) - lower - _COUNTED
        if missing - set(summary):
            summary = reading.whole(found.file_key)
        given |= {tag: summary[tag] for tag in missing if tag in summary}
        given |= self._counted(found, wished)
        return dict(sorted(given.items()))

    def _counted(self, found: _Found, wished: frozenset[str] | set[str] = frozenset()) -> Json:
        """What no file says: counts, addresses, and UIDs as the rows have them."""
        level = self._asked.level
        url = f"{self._root}/studies/{found.study}"
        given: Json = {_AVAILABILITY: _is("CS", "ONLINE"), _STUDY_UID: _is("UI", found.study)}
        if level is Level.STUDY or Level.STUDY in self._asked.within:
            with self._parts.database.read() as session:
                objects = catalog.held_objects(session, studies=[found.study])
            given |= self._of_study(objects, wished)
        if level is Level.SERIES:
            series = found.objects[0].series_instance_uid
            url += f"/series/{series}"
            given[_SERIES_UID] = _is("UI", series)
            given[_IN_SERIES_COUNT] = _is("IS", self._in_series(found))
        if level is Level.INSTANCE:
            item = found.objects[0]
            url += f"/series/{item.series_instance_uid}/instances/{item.sop_instance_uid}"
            given[_SERIES_UID] = _is("UI", item.series_instance_uid)
            given[_INSTANCE_UID] = _is("UI", item.sop_instance_uid)
            given[_CLASS] = _is("UI", item.sop_class_uid)
        given[_URL] = _is("UR", url)
        return given

    def _of_study(self, objects: Sequence[HeldObject], wished: frozenset[str] | set[str]) -> Json:
        by_series = _by_series(objects)
        modalities: dict[str, None] = {}
        for of_series in by_series.values():
            summary = self._reading.summary(of_series[0].file_key)
            for value in summary.get(_MODALITY, {}).get("Value", ()):
                modalities[str(value)] = None
        given = {
            _MODALITIES: _is("CS", *modalities),
            _SERIES_COUNT: _is("IS", len(by_series)),
            _OBJECTS_COUNT: _is("IS", len(objects)),
        }
        if _CLASSES in wished:
            given[_CLASSES] = _is("UI", *dict.fromkeys(item.sop_class_uid for item in objects))
        return given

    def _in_series(self, found: _Found) -> int:
        if self._asked.instances is None:
            return len(found.objects)
        with self._parts.database.read() as session:
            series = [found.objects[0].series_instance_uid]
            return len(catalog.held_objects(session, studies=[found.study], series=series))


def _by_rows(one: Criterion) -> bool:
    """Whether the database alone decides: a UID; of a date and a number it rules out the most."""
    if one.value == EMPTY:
        return False
    return one.path in ((_STUDY_UID,), (_SERIES_UID,), (_INSTANCE_UID,), (_DATE,)) or (
        one.path == (_ACCESSION,) and one.is_exact
    )


def _by_series(objects: Sequence[HeldObject]) -> dict[str, list[HeldObject]]:
    found: dict[str, list[HeldObject]] = {}
    for item in objects:
        found.setdefault(item.series_instance_uid, []).append(item)
    return found


def _is(vr: str, *values: str | int) -> Json:
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}
