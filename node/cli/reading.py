"""What ``echonode analyze`` does with files: the node's own steps, one after the other."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from models.clip import ClipError, read_header
from models.ecg.reading import is_ecg_file
from models.explain.panels import EncodedPicture
from models.finding import Finding, Refusal
from models.packs import Pack, PackError
from models.views import View, ViewCall
from node.analysis import (
    ClipView,
    EcgAnalysis,
    RecordingAnalysis,
    analyse,
    name_view,
    picture_settings,
    reason_to_skip,
)
from node.cli.findings import finding_json, output_title, view_json
from node.cli.output import Problem, say
from node.cli.picture import write_frame, write_jpeg
from node.evidence import cautions, reportable
from node.executor import WorkerError, WorkerProcesses, WorkerStartFailed
from node.kept import without_samples
from node.records import read_to_row, reading_from_row
from node.results import (
    ClipResult,
    EcgResult,
    EncodedObject,
    ObjectRef,
    ReportSettings,
    ResultError,
    build_capture,
    build_ecg_capture,
    build_ecg_report,
    build_page,
    build_report,
    is_own_object,
)
from node.results.check import check_object
from node.sections import LogSettings
from node.settings import Settings
from node.watch import study_key
from node.workers import prepare_worker
from storage.states import RecordingKind

_LOG = LogSettings(level="error", format="console")


@dataclass(frozen=True, kw_only=True)
class ReadClip:
    """A file and what came of it. ``result`` is for the report of its study, if it has one."""

    file: str
    kind: RecordingKind = RecordingKind.ULTRASOUND
    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None
    view: ViewCall | None = None
    refused: str | None = None  #: why no model for measurements read it, where one should have
    unreadable: bool = False
    result: ClipResult | EcgResult | None = None
    findings: tuple[Finding, ...] = ()  #: what may be reported
    refusals: tuple[Refusal, ...] = ()
    cautions: tuple[str, ...] = ()  #: what must be known beside the findings
    analysed: bool = False

    @property
    def not_given(self) -> tuple[str, ...]:
        """Outputs that were not given, each with the reason."""
        return tuple(f"{output_title({'output': r.output})}: {r.reason}" for r in self.refusals)

    def json(self) -> dict[str, Any]:
        """As ``analyze --json`` prints it."""
        return {
            "file": self.file,
            "kind": self.kind.value,
            "sop_instance_uid": self.sop_instance_uid,
            "view": view_json(self.view),
            "findings": [finding_json(finding) for finding in self.findings],
            "cautions": list(self.cautions),
            "refused": self.refused,
        }


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """A file that was written: ``kind`` is "sr", "sc" or "png"."""

    kind: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All that came of some files. ``problems`` are results that could not be made, and why."""

    clips: tuple[ReadClip, ...]
    results: tuple[ResultFile, ...]
    problems: tuple[str, ...] = ()


def read_files(
    paths: Sequence[Path], packs: Sequence[Pack], out: Path, settings: Settings
) -> Outcome:
    """Read files with these packs and write results into ``out``.

    Raises
    ------
    Problem
        If no worker process can be started or a result cannot be written.
    """
    files = [_opened(path) for path in paths]
    readable = sum(file.refused is None for file in files)
    if not readable:
        return Outcome(clips=tuple(_not_read(file) for file in files), results=())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    report_settings = ReportSettings(
        simulated_evidence=settings.analysis.allow_simulated_evidence,
        demographic_estimates=frozenset(settings.analysis.person_estimates),
    )
    count = min(settings.analysis.workers, readable)
    executor = WorkerProcesses(
        count,
        initializer=prepare_worker,
        initargs=(
            tuple(str(pack.folder) for pack in packs),
            count,
            _LOG,
            settings.prepared_networks,
        ),
        time_limit_s=settings.analysis.time_limit_s,
    )
    with _quiet():
        with executor:
            reader = _Reader(executor, packs, out, settings, report_settings)
            clips = tuple(reader.read(files))
        reports, problems = _write_reports(clips, packs, out, report_settings, reader.cines)
    return Outcome(clips=clips, results=(*reports, *reader.written), problems=tuple(problems))


@contextmanager
def _quiet() -> Iterator[None]:
    """The node's log keeps still: the command itself says what failed."""
    log = logging.getLogger("node")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


class _Reader:
    """Takes files through the steps of a worker, all at once, and gives answers in their order."""

    def __init__(
        self,
        executor: Executor,
        packs: Sequence[Pack],
        out: Path,
        settings: Settings,
        report_settings: ReportSettings,
    ) -> None:
        self._executor = executor
        self._packs = packs
        self._out = out
        self._settings = settings
        self._report_settings = report_settings
        self._ordinals: dict[tuple[str, RecordingKind], int] = {}
        self._names: set[str] = set()
        self.written: list[ResultFile] = []
        self.cines: dict[str, bytes] = {}  # by SOP Instance UID

    def read(self, files: Sequence[_File]) -> list[ReadClip]:
        futures = [self._begun(file) for file in files]
        clips = []
        for file, future in zip(files, futures, strict=True):
            if future is None:
                clips.append(_not_read(file))
                continue
            try:
                seen = future.result()
                clips.append(
                    self._ecg(file, seen)
                    if isinstance(seen, EcgAnalysis)
                    else self._clip(file, seen)
                )
            except (Problem, ResultError):
                raise
            except (WorkerStartFailed, PackError) as error:
                raise Problem(str(error)) from error
            except WorkerError as error:
                clips.append(_unreadable(file, str(error)))
            except Exception as error:  # noqa: BLE001 - the edge of a worker: others go on
                reason = f"the analysis failed: {type(error).__name__}: {error}"
                clips.append(_unreadable(file, reason))
        return clips

    def _begun(self, file: _File) -> Future[Any] | None:
        """The first thing that a worker does with a file; None where it cannot be read."""
        if file.refused is not None:
            return None
        if file.kind is RecordingKind.ECG:
            return self._analysing(file)
        return self._executor.submit(name_view, str(file.path))

    def _analysing(self, file: _File) -> Future[RecordingAnalysis]:
        return self._executor.submit(
            analyse,
            str(file.path),
            kind=file.kind,
            allow_simulated=self._settings.analysis.allow_simulated_evidence,
            drawn=picture_settings(self._settings),
        )

    def _clip(self, file: _File, seen: ClipView) -> ReadClip:
        if seen.refused is not None or seen.view is None:
            return _unreadable(file, seen.refused or "no view could be named")
        assert file.header is not None  # noqa: S101 - a clip without one was not read
        skipped = reason_to_skip(seen)
        answer: RecordingAnalysis | None = None
        if skipped is None:
            answer = self._analysing(file).result()
            skipped = answer.refused
        result = ClipResult(header=file.header, view=seen.view, not_analysed=skipped)
        if answer is not None and answer.refused is None:
            result = ClipResult(
                header=file.header,
                view=seen.view,
                findings=answer.findings,
                refusals=answer.refusals,
                capture=self._capture(file.header, answer),
                packs=answer.packs_run,
            )
        return replace(
            self._read(file, answer),
            view=seen.view,
            # Another view is no refusal: there was nothing to measure.
            refused=skipped if seen.view.view is View.A4C else None,
            result=result,
        )

    def _ecg(self, file: _File, answer: EcgAnalysis) -> ReadClip:
        if answer.refused is not None:
            return _unreadable(file, answer.refused)
        read = self._read(file, answer)
        read = replace(read, cautions=(*(f"Mind: {it}." for it in answer.troubles), *read.cautions))
        if file.header is None:
            say(f"note: {file.path}: no report of it, it names neither patient nor study")
            if answer.picture is not None:
                self._write_pages(answer.picture, file.path.stem)
            return read
        return replace(
            read,
            result=EcgResult(
                header=file.header,
                findings=answer.findings,
                refusals=answer.refusals,
                troubles=answer.troubles,
                capture=self._ecg_capture(file.header, answer),
                pages=answer.pages,
                packs=answer.packs_run,
                readings=tuple(
                    reading_from_row(read_to_row(one), one.pack) for one in answer.reads
                ),
            ),
        )

    def _read(self, file: _File, answer: RecordingAnalysis | None) -> ReadClip:
        """What may be said of a recording, and what must be known beside it."""
        read = ReadClip(
            file=str(file.path),
            kind=file.kind,
            sop_instance_uid=file.uid("SOPInstanceUID"),
            study_instance_uid=file.uid("StudyInstanceUID"),
        )
        if answer is None or answer.refused is not None:
            return read
        findings, _withheld = reportable(
            answer.findings,
            allow_simulated=self._settings.analysis.allow_simulated_evidence,
            allow_demographics=self._settings.analysis.person_estimates,
        )
        return replace(
            read,
            findings=findings,
            refusals=answer.refusals,
            cautions=cautions(findings, self._packs),
            analysed=True,
        )

    def _capture(self, header: Dataset, answer: RecordingAnalysis) -> ObjectRef | None:
        if answer.picture is None:
            return None
        study = str(header.StudyInstanceUID)
        ordinal = self._ordinal(study, RecordingKind.ULTRASOUND)
        try:
            encoded = build_capture(
                header,
                answer.picture,
                findings=answer.findings,
                packs=answer.packs_run,
                instance_number=ordinal,
                settings=self._report_settings,
                created_at=datetime.now(UTC),
            )
        except ResultError as error:
            # The findings are worth more than their picture: only the cine is given up.
            say(f"note: no saliency cine: {error}")
            return None
        self.cines[encoded.ref.sop_instance_uid] = encoded.data
        self.written += _write_picture(
            encoded, self._out / f"saliency-{study_key(study)}-{ordinal}"
        )
        return encoded.ref

    def _ecg_capture(self, header: Dataset, answer: EcgAnalysis) -> ObjectRef | None:
        if answer.picture is None:
            return None
        study = str(header.StudyInstanceUID)
        ordinal = self._ordinal(study, RecordingKind.ECG)
        name = f"{study_key(study)}-{ordinal}"
        try:
            encoded = build_ecg_capture(
                header,
                answer.picture,
                findings=answer.findings,
                packs=answer.packs_run,
                instance_number=ordinal,
                settings=self._report_settings,
                created_at=datetime.now(UTC),
            )
        except ResultError as error:
            say(f"note: no picture of the ECG: {error}")
            return None
        path = self._out / f"ecg-{name}.dcm"
        write_result(path, encoded)
        self.written.append(ResultFile(kind="sc", path=str(path)))
        self._write_pages(answer.picture, name)
        return encoded.ref

    def _write_pages(self, picture: EncodedPicture, name: str) -> None:
        """Each page as PNG; files of one name in several folders get a number."""
        number = 1
        while (wanted := name if number == 1 else f"{name}-{number}") in self._names:
            number += 1
        self._names.add(wanted)
        for page, jpeg in enumerate(picture.jpeg_frames, start=1):
            path = self._out / f"ecg-{wanted}-page-{page}.png"
            write_jpeg(jpeg, path)
            self.written.append(ResultFile(kind="png", path=str(path)))

    def _ordinal(self, study: str, kind: RecordingKind) -> int:
        key = (study, kind)
        self._ordinals[key] = self._ordinals.get(key, 0) + 1
        return self._ordinals[key]


def _write_picture(encoded: EncodedObject, path: Path) -> list[ResultFile]:
    """A capture as DICOM and as PNG; ``path`` has no ending yet."""
    whole, frame = path.with_suffix(".dcm"), path.with_suffix(".png")
    write_result(whole, encoded)
    write_frame(encoded.data, frame)
    return [ResultFile(kind="sc", path=str(whole)), ResultFile(kind="png", path=str(frame))]


def write_result(path: Path, encoded: EncodedObject) -> None:
    """Check a result as the node does, then write its file; one of an earlier run is replaced."""
    faults = check_object(encoded)
    if faults:
        raise Problem(f"{path} is not written, it has faults: {faults[0]}")
    try:
        path.write_bytes(encoded.data)
    except OSError as error:
        raise Problem(f"{path}: cannot be written: {error.strerror}") from error


@dataclass(frozen=True, kw_only=True)
class _File:
    """A file, and as what it is read; ``refused`` says why it is not.

    ``header`` is None for an ECG that is no DICOM object.
    """

    path: Path
    kind: RecordingKind = RecordingKind.ULTRASOUND
    header: Dataset | None = None
    refused: str | None = None

    def uid(self, keyword: str) -> str | None:
        """One of its UIDs, where it has any."""
        return None if self.header is None else str(self.header[keyword].value)


def _opened(path: Path) -> _File:
    try:
        header = read_header(path)
    except ClipError as error:
        if is_ecg_file(path):
            return _File(path=path, kind=RecordingKind.ECG)
        return _File(path=path, refused=str(error))
    if not header.get("SOPInstanceUID") or not header.get("StudyInstanceUID"):
        return _File(path=path, refused="it has no SOP or Study Instance UID")
    if is_own_object(header):
        return _File(path=path, refused="echonode made it: it does not read its own results")
    if is_ecg_file(path):
        return _File(path=path, kind=RecordingKind.ECG, header=without_samples(header))
    return _File(path=path, header=header)


def _not_read(file: _File) -> ReadClip:
    return ReadClip(file=str(file.path), kind=file.kind, refused=file.refused, unreadable=True)


def _unreadable(file: _File, reason: str) -> ReadClip:
    result: ClipResult | EcgResult | None = None
    if file.header is not None:
        made = EcgResult if file.kind is RecordingKind.ECG else ClipResult
        result = made(header=file.header, not_analysed=reason)
    return replace(
        _not_read(file),
        sop_instance_uid=file.uid("SOPInstanceUID"),
        study_instance_uid=file.uid("StudyInstanceUID"),
        refused=reason,
        result=result,
    )


def _write_reports(
    clips: Sequence[ReadClip],
    packs: Sequence[Pack],
    out: Path,
    settings: ReportSettings,
    cines: Mapping[str, bytes],
) -> tuple[list[ResultFile], list[str]]:
    """Reports and a page for each study of which a model read anything, as the node makes them.

    Returns what was written, and a line for each study whose report could not be made.
    """
    written: list[ResultFile] = []
    problems: list[str] = []
    tested_on = {
        (pack.ref, output.name): output.tested_on
        for pack in packs
        for output in pack.manifest.outputs
    }
    analysed = [clip for clip in clips if clip.analysed and clip.result is not None]
    for study in dict.fromkeys(clip.study_instance_uid for clip in analysed):
        of_study = _of_study(clips, study)
        created_at = datetime.now(UTC)
        read = {clip.kind for clip in analysed if clip.study_instance_uid == study}
        echo = [result for result in of_study if isinstance(result, ClipResult)]
        ecgs = [result for result in of_study if isinstance(result, EcgResult)]
        path = out / f"report-{study_key(str(study))}.dcm"
        try:
            if RecordingKind.ULTRASOUND in read:
                encoded = build_report(
                    echo,
                    revision=1,
                    predecessor=None,
                    settings=settings,
                    created_at=created_at,
                    tested_on=tested_on,
                    not_read=[
                        f"ECG, not analysed: {ecg.not_analysed.rstrip('.')}."
                        for ecg in ecgs
                        if ecg.not_analysed is not None
                    ],
                )
                write_result(path, encoded)
                written.append(ResultFile(kind="sr", path=str(path)))
                path = out / f"summary-{study_key(str(study))}.dcm"
                page = build_page(
                    echo,
                    cines,
                    revision=1,
                    settings=settings,
                    created_at=created_at,
                    tested_on=tested_on,
                )
                written += _write_picture(page, path)
            if RecordingKind.ECG in read:
                path = out / f"report-ecg-{study_key(str(study))}.dcm"
                encoded = build_ecg_report(
                    ecgs,
                    revision=1,
                    predecessor=None,
                    settings=settings,
                    created_at=created_at,
                    tested_on=tested_on,
                )
                write_result(path, encoded)
                written.append(ResultFile(kind="sr", path=str(path)))
        except (ResultError, Problem) as error:
            problems.append(f"no {path.stem.partition('-')[0]} {path}: {error}")
    return written, problems


def _of_study(clips: Sequence[ReadClip], study: str | None) -> list[ClipResult | EcgResult]:
    """What reports of the study speak of: of files with one SOP Instance UID, the first.

    A report can name a UID once only, and a node would keep the first and quarantine the rest.
    """
    chosen: dict[str | None, ReadClip] = {}
    for clip in clips:
        if clip.study_instance_uid != study or clip.result is None:
            continue
        first = chosen.setdefault(clip.sop_instance_uid, clip)
        if first is not clip:
            say(f"note: {clip.file} has the SOP Instance UID of {first.file}: not in the report")
    return [clip.result for clip in chosen.values() if clip.result is not None]
