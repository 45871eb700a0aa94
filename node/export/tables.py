"""Findings as a table beside the copies: what the node found, by the copies' names."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from storage.catalog import RecordingRecord

COLUMNS: Final = (
    "patient",
    "study",
    "clip",
    "mode",
    "view",
    "view_score",
    "view_certain",
    "frames",
    "output",
    "value",
    "unit",
    "low",
    "high",
    "score",
    "evidence",
    "pack",
    "pack_version",
    "weights_sha256",
)
NAME: Final = "findings.csv"


def rows_of(patient: str, study: str, clip: str, recording: RecordingRecord) -> list[list[Any]]:
    """The lines of a clip: one for each finding, or one without."""
    score = recording.view_score
    head = [
        patient,
        study,
        clip,
        recording.mode or "",
        recording.view_label or "",
        "" if score is None else f"{score:.4f}",
        "" if recording.view_certain is None else str(recording.view_certain).lower(),
        recording.frame_count or "",
    ]
    if not recording.findings:
        return [[*head, *[""] * (len(COLUMNS) - len(head))]]
    return [
        [
            *head,
            found.output,
            *(
                "" if number is None else f"{number:.6g}" if isinstance(number, float) else number
                for number in (found.value, found.unit, found.low, found.high, found.score)
            ),
            found.evidence,
            found.pack,
            found.pack_version,
            found.weights_sha256,
        ]
        for found in recording.findings
    ]


def write_table(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a table; what was there before is replaced at once."""
    new = path.with_name(f".{path.name}.part")
    with new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def join_tables(folder: Path) -> int:
    """Write one table of all studies' tables in an export; returns how many lines it has."""
    rows: list[list[str]] = []
    for part in sorted(folder.glob(f"P*/S*/{NAME}")):
        with part.open(encoding="utf-8", newline="") as file:
            rows += list(csv.reader(file))[1:]
    write_table(folder / NAME, rows)
    return len(rows)
