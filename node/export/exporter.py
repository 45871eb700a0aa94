"""An export: studies one after the other into a folder, that can be broken off and gone on with."""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from node.export.copying import (
    Source,
    Wishes,
    class_reason,
    copy_object,
    fit_source,
    patient_identity,
)
from node.export.errors import ExportError, LeftOut, NotClean, RefusedError
from node.export.keyfile import KeyFile, forgotten_key, open_key, read_key, sync_folder
from node.export.profile import EDITION
from node.export.sheet import draw_sheet
from node.export.tables import NAME, join_tables, rows_of, write_table
from storage import catalog
from storage.catalog import HeldObject, RecordingRecord, StudyState
from storage.database import Database
from storage.files import FileStore, FileStoreError

_MANIFEST: Final = "export.json"
_SHEETS: Final = "contact-sheets"
_UNWRITABLE: Final = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    NotImplementedError,
    struct.error,
)


@dataclass(kw_only=True)
class StudyOutcome:
    """What became of a study. ``folder`` is its place in the export, "" where it has none."""

    study_instance_uid: str
    folder: str = ""
    written: int = 0
    there: int = 0  #: copies that an earlier run wrote
    scrubbed: int = 0  #: values beyond the table that held a word of the identity
    left_out: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)


class Exporter:
    """Copies studies into one folder; made by :func:`open_export`."""

    def __init__(
        self,
        database: Database,
        files: FileStore,
        folder: Path,
        key: KeyFile,
        wishes: Wishes,
        *,
        dry_run: bool,
        quiet_s: float,
    ) -> None:
        self._database: Final = database
        self._files: Final = files
        self._folder: Final = folder
        self._key: Final = key
        self._names: Final = key.pseudonyms
        self._wishes: Final = wishes
        self._dry_run: Final = dry_run
        self._quiet_s: Final = quiet_s

    def take(self, study_instance_uid: str) -> StudyOutcome:
        """Copy what is kept of a study.

        Raises
        ------
        ExportError
            If the export cannot go on: the disk or the key file.
        """
        outcome = StudyOutcome(study_instance_uid=study_instance_uid)
        with self._database.read() as session:
            detail = catalog.study_detail(session, study_instance_uid)
            held = catalog.held_objects(session, studies=[study_instance_uid])
        age_s = (datetime.now(UTC) - detail.study.last_image_at).total_seconds()
        if detail.study.state is StudyState.RECEIVING and abs(age_s) < self._quiet_s:
            outcome.left_out["its study is still being received"] += max(1, detail.study.images)
            return outcome
        made = {result.sop_instance_uid for result in detail.results}
        sources = [one for one in held if one.sop_instance_uid not in made]
        gone = detail.study.images - len(sources)
        if gone > 0:
            outcome.left_out["its file is no longer kept"] += gone
        try:
            self._copy(study_instance_uid, sources, detail.recordings, outcome)
        except OSError as error:
            raise ExportError(
                f"{error.filename or self._folder}: {error.strerror or error}; what was written "
                "so far is whole: mend it and start the same command again"
            ) from error
        return outcome

    def finish(self) -> int:
        """Bring all to the disk; returns the lines of the table of findings."""
        self._key.save()
        if self._dry_run or not self._wishes.findings:
            return 0
        return join_tables(self._folder)

    def _copy(
        self,
        study: str,
        sources: Sequence[HeldObject],
        recordings: Sequence[RecordingRecord],
        outcome: StudyOutcome,
    ) -> None:
        patient = ""
        folder = self._folder
        copied: set[str] = set()
        for one in sources:
            reason = class_reason(one.sop_class_uid)
            if reason:
                outcome.left_out[reason] += 1
                continue
            new = self._names.uid(one.sop_instance_uid)
            try:
                if patient and (folder / f"{new}.dcm").exists():
                    outcome.there += 1
                    copied.add(one.sop_instance_uid)
                    continue
                with self._files.local(one.file_key) as path:
                    source = fit_source(path, self._wishes)
                    if not patient:
                        patient = self._patient(source)
                        folder = self._place(patient, study, outcome)
                    if (folder / f"{new}.dcm").exists():
                        outcome.there += 1
                    else:
                        self._write(source, patient, folder, outcome)
                copied.add(one.sop_instance_uid)
            except LeftOut as error:
                outcome.left_out[str(error)] += 1
            except FileStoreError as error:
                if not error.is_lasting:
                    raise ExportError(
                        f"{error}; what was written so far is whole: start the same command again"
                    ) from error
                outcome.left_out["its file is gone or damaged"] += 1
            except NotClean as error:
                outcome.failed[f"its copy did not pass the inspection: {error}"] += 1
            except _UNWRITABLE as error:
                # Values that no writer takes: the message may quote them.
                outcome.failed[f"its copy cannot be written ({type(error).__name__})"] += 1
        if copied and not self._dry_run:
            if self._wishes.sheets:
                self._draw_sheets(folder, copied)
            if self._wishes.findings:
                self._write_findings(folder, patient, study, recordings, copied)
            sync_folder(folder)

    def _patient(self, source: Source) -> str:
        """The number of a study's patient, by its first object; remembered before it is used."""
        who = patient_identity(source.clip.header)
        patient = self._names.patient(*who)
        keys = {"number": ("patient_id", "issuer"), "name": ("name", "born"), "study": ("study",)}
        self._key.note_patient(patient, dict(zip(keys[who[0]], who[1:], strict=True)))
        return patient

    def _place(self, patient: str, study: str, outcome: StudyOutcome) -> Path:
        relative = f"{patient}/{self._names.folder(study)}"
        outcome.folder = relative
        folder = self._folder / relative
        self._key.note_study(self._names.uid(study), study)
        if not self._dry_run:
            self._key.save_now_and_then()
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.parent)
            for left in folder.glob(".*.part"):
                left.unlink()  # of a run that was killed
        return folder

    def _write(self, source: Source, patient: str, folder: Path, outcome: StudyOutcome) -> None:
        if not self._dry_run:
            _, scrubbed = copy_object(source, self._names, patient, self._wishes, folder)
            outcome.scrubbed += scrubbed
        outcome.written += 1

    def _draw_sheets(self, folder: Path, copied: Iterable[str]) -> None:
        sheets = self._folder / _SHEETS
        sheets.mkdir(exist_ok=True)
        for uid in copied:
            name = self._names.uid(uid)
            if not (sheets / f"{name}.png").exists():
                draw_sheet(folder / f"{name}.dcm", sheets / f"{name}.png")

    def _write_findings(
        self,
        folder: Path,
        patient: str,
        study: str,
        recordings: Sequence[RecordingRecord],
        copied: set[str],
    ) -> None:
        rows = [
            row
            for one in recordings
            if one.sop_instance_uid in copied
            for row in rows_of(
                patient, self._names.uid(study), self._names.uid(one.sop_instance_uid), one
            )
        ]
        write_table(folder / NAME, rows)


@contextmanager
def open_export(
    database: Database,
    files: FileStore,
    folder: Path,
    key_path: Path | None,
    wishes: Wishes,
    *,
    dry_run: bool = False,
    quiet_s: float = 0.0,
) -> Iterator[Exporter]:
    """An export into a folder, new or begun before with the same key and the same wishes.

    ``quiet_s``: a study that got an image so lately may be still on its way.

    Raises
    ------
    ExportError
        If the folder or the key file cannot be used, or do not go together.
    """
    folder = folder.absolute()
    _check_places(folder, key_path, files)
    if dry_run:
        key = read_key(key_path) if key_path is not None and key_path.exists() else forgotten_key()
        _check_manifest(folder, _manifest(key, wishes), kept=key_path is not None)
        yield Exporter(database, files, folder, key, wishes, dry_run=True, quiet_s=quiet_s)
        return
    with _key_of(key_path) as key:
        _begin(folder, _manifest(key, wishes), kept=key_path is not None)
        yield Exporter(database, files, folder, key, wishes, dry_run=False, quiet_s=quiet_s)


@contextmanager
def _key_of(path: Path | None) -> Iterator[KeyFile]:
    if path is None:
        yield forgotten_key()
        return
    with open_key(path) as key:
        yield key


def _check_places(folder: Path, key: Path | None, files: FileStore) -> None:
    """Nothing that leads back may lie with what is given away."""
    real = folder.resolve()
    if key is not None:
        place = key.resolve()
        if place.is_relative_to(real):
            raise RefusedError(
                f"the key file {key} would lie in the export folder {folder}: whoever gets the "
                "folder could go back to the patients; name a place outside"
            )
        if not place.parent.is_dir():
            raise RefusedError(f"the key file {key}: there is no folder {place.parent}")
    if real.is_relative_to(files.root.resolve()):
        raise RefusedError(
            f"the export folder {folder} lies in the node's own data; name another place"
        )


def _manifest(key: KeyFile, wishes: Wishes) -> dict[str, Any]:
    return {
        "format": "echonode export",
        "version": 1,
        "profile": f"PS3.15 {EDITION} Basic Application Level Confidentiality Profile, "
        "Clean Pixel Data Option",
        "key": key.pseudonyms.fingerprint,
        "dates": wishes.dates.value,
        "pixels": wishes.coding.value,
        "spectra": wishes.spectra,
    }


def _check_manifest(folder: Path, wanted: Mapping[str, Any], *, kept: bool) -> bool:
    """Whether the folder holds an export of the same kind; False where nothing is there."""
    path = folder / _MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if folder.exists() and any(not one.name.startswith(".") for one in folder.iterdir()):
            raise RefusedError(f"{folder} is not empty and holds no export; name another") from None
        return False
    except (OSError, ValueError) as error:
        raise RefusedError(f"{path} cannot be read: it is not an export's; name another") from error
    other = [name for name, value in wanted.items() if found.get(name) != value]
    if "key" in other:
        step = (
            "the same patients would get other names; name the key file that began it"
            if kept
            else "without --key its secret is forgotten; name a new folder, and a key file to go on"
        )
        raise RefusedError(f"{folder} was written with another key: {step}")
    if other:
        raise RefusedError(
            f"{folder} was written with other {', '.join(other)}; use the same, or a new folder"
        )
    return True


def _begin(folder: Path, wanted: Mapping[str, Any], *, kept: bool) -> None:
    try:
        if _check_manifest(folder, wanted, kept=kept):
            return
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / f".{_MANIFEST}.part"
        new.unlink(missing_ok=True)
        with new.open("x", encoding="utf-8") as file:
            json.dump(wanted, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / _MANIFEST)
        sync_folder(folder)
    except OSError as error:
        raise ExportError(f"{folder} cannot be written: {error.strerror}") from error
