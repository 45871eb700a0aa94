"""Recordings and findings as commands print them: one shape for all that print them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.finding import Finding, Kind
from models.tasks import TASKS
from node.cli.output import print_table, print_text

if TYPE_CHECKING:
    from models.views import ViewCall


def finding_json(finding: Finding) -> dict[str, Any]:
    """A finding; ``low`` and ``high`` bound a 95 % interval in ``unit`` (UCUM)."""
    return {
        "output": finding.output,
        "value": finding.value,
        "unit": finding.unit,
        "low": finding.low,
        "high": finding.high,
        "score": finding.score,
        "pack": finding.pack.name,
        "version": finding.pack.version,
        "evidence": finding.evidence.value,
        "per_beat": list(finding.per_beat),
        "outside_share": finding.outside_share,
        "spans_ms": [list(span) for span in finding.spans_ms],
    }


def view_json(view: ViewCall | None) -> dict[str, Any] | None:
    """A view call, or null where no view could be named."""
    if view is None:
        return None
    return {"label": view.view.value, "score": view.score, "certain": view.certain}


def print_clips(clips: Iterable[Mapping[str, Any]], *, title: str = "Clips") -> None:
    """A table of clips with their views, and of ECGs, then one of their findings."""
    clips = _with_short_names(clips)
    print_table(
        title,
        ("clip", "view", "score", "note"),
        [(_clip_name(clip), *_view_cells(clip), _note(clip)) for clip in clips],
        long=("note",),
    )
    print_table(
        "Findings",
        ("clip", "output", "value", "95 % interval", "evidence", "pack", "beats"),
        [
            (
                _clip_name(clip),
                output_title(found),
                value(found),
                interval(found),
                found["evidence"],
                f"{found['pack']} {found['version']}",
                beats(found),
            )
            for clip in clips
            for found in clip["findings"]
        ],
        long=("clip", "output"),
    )
    if any(found["evidence"] == "simulated" for clip in clips for found in clip["findings"]):
        print_text("Evidence 'simulated': the model has only seen the simulator, never a patient.")
    print_text("Research use only, not for diagnosis.")


def output_title(found: Mapping[str, Any]) -> str:
    """What an output is called, with its name as in JSON."""
    task = TASKS.get(found["output"])
    return found["output"] if task is None else f"{task.title} ({task.name})"


def value(found: Mapping[str, Any]) -> str:
    """A finding's number with its unit."""
    number = found["score"] if found["value"] is None else found["value"]
    return "-" if number is None else f"{_digits(found, number)} {_unit(found)}".strip()


def interval(found: Mapping[str, Any]) -> str:
    """A finding's interval with its unit."""
    low, high = found["low"], found["high"]
    if low is None or high is None:
        return "-"
    return f"{_digits(found, low)} to {_digits(found, high)} {_unit(found)}".strip()


def beats(found: Mapping[str, Any]) -> str:
    """What each beat gave, where the finding is the mean of several."""
    each = found.get("per_beat") or ()
    return ", ".join(_digits(found, number) for number in each) if len(each) > 1 else ""


def _digits(found: Mapping[str, Any], number: float) -> str:
    task = TASKS.get(found["output"])
    if (task is not None and task.kind is Kind.SCORE) or found["unit"] == "mV":
        return f"{number:.2f}"
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.1f}"


def _unit(found: Mapping[str, Any]) -> str:
    unit = str(found["unit"])
    return "" if unit.startswith("{") else unit


def _with_short_names(clips: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The clips with the last part of each path, where that is enough to tell them apart."""
    clips = tuple(clips)
    short = [Path(str(clip["file"])).name for clip in clips if clip.get("file")]
    if len(set(short)) < len(clips):
        return clips
    return tuple({**clip, "file": name} for clip, name in zip(clips, short, strict=True))


def _clip_name(clip: Mapping[str, Any]) -> str:
    return str(clip.get("file") or clip["sop_instance_uid"])


def _view_cells(clip: Mapping[str, Any]) -> tuple[str, str]:
    if clip.get("kind") == "ecg":
        return "12-lead ECG", "-"
    view = clip["view"]
    if view is None:
        return "-", "-"
    certain = "" if view["certain"] else " (uncertain)"
    return f"{view['label']}{certain}", f"{view['score']:.2f}"


def _note(clip: Mapping[str, Any]) -> str:
    return str(clip.get("refused") or clip.get("reason") or "")
