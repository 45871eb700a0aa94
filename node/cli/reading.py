"""What ``echonode analyze`` does with files: the node's own steps, one after the other."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from models.clip import ClipError, read_header
from models.finding import Finding
from models.packs import Pack, PackError
from models.views import View, ViewCall
from node.analysis import (
    ClipAnalysis,
    ClipView,
    analyse,
    name_view,
    picture_settings,
    reason_to_skip,
)
from node.cli.findings import finding_json, output_title, view_json
from node.cli.output import Problem, say
from node.cli.picture import write_frame
from node.evidence import cautions, reportable
from node.executor import WorkerError, WorkerProcesses, WorkerStartFailed
from node.results import (
    ClipResult,
    EncodedObject,
    ObjectRef,
    ReportSettings,
    ResultError,
    build_capture,
    build_page,
    build_report,
    is_own_object,
)
from node.results.check import check_object
from node.sections import LogSettings
from node.settings import Settings
from node.watch import study_key
from node.workers import prepare_worker

_LOG = LogSettings(level="error", format="console")


@dataclass(frozen=True, kw_only=True)
class ReadClip:
    """A file and what came of it."""

    file: str
    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None
    view: ViewCall | None = None
    refused: str | None = None  #: why no model for measurements read it, where one should have
    unreadable: bool = False
    result: ClipResult | None = None
    findings: tuple[Finding, ...] = ()  #: what may be reported
    cautions: tuple[str, ...] = ()  #: what must be known beside the findings
    analysed: bool = False

    @property
    def not_given(self) -> tuple[str, ...]:
        """Outputs that were not given, each with the reason."""
        refusals = () if self.result is None else self.result.refusals
        return tuple(f"{output_title({'output': r.output})}: {r.reason}" for r in refusals)

    def json(self) -> dict[str, Any]:
        """As ``analyze --json`` prints it."""
        return {
            "file": self.file,
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
    headers = [_header(path) for path in paths]
    readable = sum(isinstance(header, Dataset) for header in headers)
    if not readable:
        refused = [_not_read(path, header) for path, header in zip(paths, headers, strict=True)]
        return Outcome(clips=tuple(refused), results=())
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
            clips = tuple(reader.read(paths, headers))
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
    """Takes files through the steps of a worker, all files at once, answers in their order."""

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
        self._ordinals: dict[str, int] = {}
        self.written: list[ResultFile] = []
        self.cines: dict[str, bytes] = {}  # by SOP Instance UID

    def read(self, paths: Sequence[Path], headers: Sequence[Dataset | str]) -> list[ReadClip]:
        views = [
            self._executor.submit(name_view, str(path)) if isinstance(header, Dataset) else None
            for path, header in zip(paths, headers, strict=True)
        ]
        clips = []
        for path, header, future in zip(paths, headers, views, strict=True):
            if future is None or not isinstance(header, Dataset):
                clips.append(_not_read(path, header))
                continue
            try:
                clips.append(self._clip(path, header, future.result()))
            except (Problem, ResultError):
                raise
            except (WorkerStartFailed, PackError) as error:
                raise Problem(str(error)) from error
            except WorkerError as error:
                clips.append(_unreadable(path, header, str(error)))
            except Exception as error:  # noqa: BLE001 - the edge of a worker: others go on
                reason = f"the analysis failed: {type(error).__name__}: {error}"
                clips.append(_unreadable(path, header, reason))
        return clips

    def _clip(self, path: Path, header: Dataset, seen: ClipView) -> ReadClip:
        if seen.refused is not None or seen.view is None:
            return _unreadable(path, header, seen.refused or "no view could be named")
        skipped = reason_to_skip(seen)
        answer: ClipAnalysis | None = None
        allow = self._settings.analysis.allow_simulated_evidence
        if skipped is None:
            answer = self._executor.submit(
                analyse,
                str(path),
                allow_simulated=allow,
                drawn=picture_settings(self._settings),
            ).result()
            skipped = answer.refused
        result = ClipResult(header=header, view=seen.view, not_analysed=skipped)
        findings: tuple[Finding, ...] = ()
        if answer is not None and answer.refused is None:
            result = self._result(header, seen.view, answer)
            findings, _withheld = reportable(
                answer.findings,
                allow_simulated=allow,
                allow_demographics=self._settings.analysis.person_estimates,
            )
        return ReadClip(
            file=str(path),
            sop_instance_uid=str(header.SOPInstanceUID),
            study_instance_uid=str(header.StudyInstanceUID),
            view=seen.view,
            # Another view is no refusal: there was nothing to measure.
            refused=skipped if seen.view.view is View.A4C else None,
            result=result,
            findings=findings,
            cautions=cautions(findings, self._packs),
            analysed=answer is not None and answer.refused is None,
        )

    def _result(self, header: Dataset, view: ViewCall, answer: ClipAnalysis) -> ClipResult:
        return ClipResult(
            header=header,
            view=view,
            findings=answer.findings,
            refusals=answer.refusals,
            capture=self._capture(header, answer),
            packs=answer.packs_run,
        )

    def _capture(self, header: Dataset, answer: ClipAnalysis) -> ObjectRef | None:
        if answer.picture is None:
            return None
        study = str(header.StudyInstanceUID)
        ordinal = self._ordinals[study] = self._ordinals.get(study, 0) + 1
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


def _header(path: Path) -> Dataset | str:
    """A file's header, or in words why it has none that can be used."""
    try:
        header = read_header(path)
    except ClipError as error:
        return str(error)
    if not header.get("SOPInstanceUID") or not header.get("StudyInstanceUID"):
        return "it has no SOP or Study Instance UID"
    if is_own_object(header):
        return "echonode made it: it does not read its own results"
    return header


def _not_read(path: Path, reason: object) -> ReadClip:
    return ReadClip(file=str(path), refused=str(reason), unreadable=True)


def _unreadable(path: Path, header: Dataset, reason: str) -> ReadClip:
    return ReadClip(
        file=str(path),
        sop_instance_uid=str(header.SOPInstanceUID),
        study_instance_uid=str(header.StudyInstanceUID),
        refused=reason,
        unreadable=True,
        result=ClipResult(header=header, not_analysed=reason),
    )


def _write_reports(
    clips: Sequence[ReadClip],
    packs: Sequence[Pack],
    out: Path,
    settings: ReportSettings,
    cines: Mapping[str, bytes],
) -> tuple[list[ResultFile], list[str]]:
    """A report and a page for each study in which a model read a clip, as the node would make it.

    Returns what was written, and a line for each study whose report could not be made.
    """
    written: list[ResultFile] = []
    problems: list[str] = []
    tested_on = {
        (pack.ref, output.name): output.tested_on
        for pack in packs
        for output in pack.manifest.outputs
    }
    for study in dict.fromkeys(clip.study_instance_uid for clip in clips if clip.analysed):
        path = out / f"report-{study_key(str(study))}.dcm"
        of_study = _of_study(clips, study)
        created_at = datetime.now(UTC)
        try:
            encoded = build_report(
                of_study,
                revision=1,
                predecessor=None,
                settings=settings,
                created_at=created_at,
                tested_on=tested_on,
            )
            write_result(path, encoded)
            written.append(ResultFile(kind="sr", path=str(path)))
            path = out / f"summary-{study_key(str(study))}.dcm"
            page = build_page(
                of_study,
                cines,
                revision=1,
                settings=settings,
                created_at=created_at,
                tested_on=tested_on,
            )
            written += _write_picture(page, path)
        except (ResultError, Problem) as error:
            problems.append(f"no {path.stem.partition('-')[0]} {path}: {error}")
    return written, problems


def _of_study(clips: Sequence[ReadClip], study: str | None) -> list[ClipResult]:
    """What a report of the study speaks of: of files with one SOP Instance UID, the first.

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
