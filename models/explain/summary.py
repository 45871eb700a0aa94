"""A pack's checks of explanations in short: from what ``explanations.json`` holds.

For the head of the page and for whoever shows a pack. A pack from outside may hold anything there:
what cannot be read gives nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.ecg.explain import in_short

FIGURES, PAGE = "explanations.json", "explanations.md"

COLUMNS = ("output", "on", "D2 hits", "D3 wins", "D4 left", "D6 adds up", "D7 outside")

LEGEND = (
    "D2 hits: the map's strongest place lies in the output's own structure, share of clips. D3 "
    "wins: covering the structure moves the output more than covering elsewhere. D4 left: rank "
    "correlation with the true map once all weights are shuffled, low is good. D6 adds up: "
    "integrated gradients within 1 %, share of frames. D7 outside: share of relevance outside the "
    "sector, and its largest."
)

_ALIKE = 0.5  # rank correlation with a network of shuffled weights
_STEADY = 0.8  # rank correlation under a little noise or a small shift
_SELDOM = 0.05  # of clips above the limit
_READS = 0.5  # of what covering the structure does: a network that letters move so much reads them


@dataclass(frozen=True, kw_only=True)
class Summary:
    """``rows`` under ``columns``, of the first method; ``remarks`` on what it or the outputs
    did not pass, and ``of_others`` on what the other methods did not."""

    method: str
    rows: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...]
    of_others: tuple[str, ...]
    columns: tuple[str, ...] = COLUMNS
    legend: str = LEGEND


def read_summary(folder: Path) -> Summary | None:
    """What a pack's folder says of its checks; None where it says nothing that can be read."""
    try:
        return summary(json.loads((folder / FIGURES).read_text()))
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None


def summary(figures: Mapping[str, Any]) -> Summary:
    """In short what :meth:`models.explain.battery.QualityReport.as_json` holds, or a waveform
    pack's :meth:`models.ecg.explain.battery.WaveformReport.as_json`."""
    if figures.get("kind") == in_short.KIND:
        return _of_waveforms(figures)
    rows = []
    method = figures["on"][0]["maps"][0]["method"]
    for checked in figures["on"]:
        others = {tuple(one["outputs"]): one for one in checked["outputs"]}
        for maps in checked["maps"]:
            if maps["method"] != method:
                continue
            other = others[tuple(maps["outputs"])]
            left = maps["randomised"][-1][1]["value"] if maps["randomised"] else None
            rows.append(
                (
                    ", ".join(maps["outputs"]),
                    f"{checked['clips']} {checked['evidence']}",
                    _share(maps["pointing"]["value"]),
                    _share(other["covering_wins"]["value"]),
                    "-" if left is None else f"{left:.2f}",
                    _share(other["complete"]["value"]),
                    f"{_share(maps['outside']['value'])}, most {_share(maps['outside_most'])}",
                )
            )
    return _split(method, rows, list(_remarks(figures)))


def _of_waveforms(figures: Mapping[str, Any]) -> Summary:
    method = figures["on"][0]["maps"][0]["method"]
    found = _split(method, list(in_short.rows(figures)), list(in_short.remarks(figures)))
    return replace(found, columns=in_short.COLUMNS, legend=in_short.LEGEND)


def _split(
    method: str, rows: Sequence[tuple[str, ...]], said: Sequence[tuple[str, str]]
) -> Summary:
    return Summary(
        method=method,
        rows=tuple(rows),
        remarks=tuple(words for by, words in said if by in ("", method)),
        of_others=tuple(words for by, words in said if by not in ("", method)),
    )


def _remarks(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The method, empty where it is of none, and the words."""
    for checked in figures["on"]:
        where = f"on {checked['clips']} {checked['evidence']}"
        for maps in checked["maps"]:
            said = list(_of_maps(maps))
            if said:
                what = f"{', '.join(maps['outputs'])} by {maps['method']}"
                yield maps["method"], f"{what}, {where}: {'; '.join(said)}"
        for one in checked["outputs"]:
            said = list(_of_output(one))
            if said:
                yield "", f"{', '.join(one['outputs'])}, {where}: {'; '.join(said)}"


def _of_maps(maps: Mapping[str, Any]) -> Iterator[str]:
    def value(name: str) -> float:
        found = maps[name]["value"]
        return float("nan") if found is None else float(found)

    blind = [
        name
        for name, worse in (
            ("insertion", value("insertion") <= value("insertion_by_random")),
            ("deletion", value("deletion") >= value("deletion_by_random")),
        )
        if worse
    ]
    if blind:
        yield f"{' and '.join(blind)} no better than by a random map (D1)"
    elif value("insertion") < value("insertion_by_centre") and (
        value("deletion") > value("deletion_by_centre")
    ):
        yield "insertion and deletion worse than by a Gaussian at the sector's middle (D1)"
    # A view is told by every structure, and the mask has the left heart's alone.
    traced = maps["energy"]["n"] and list(maps["outputs"]) != ["view"]
    if traced and maps["energy"]["low"] <= maps["energy_by_chance"]["high"]:
        yield "it lies on the structure no more than by chance (D2)"
    if maps["randomised"]:
        left = maps["randomised"][-1][1]["value"]
        if left is not None and left >= _ALIKE:
            yield f"with all weights shuffled it is still much alike, {left:.2f} (D4)"
    if min(value("noise"), value("shift")) < _STEADY:
        yield "it is unsteady under noise or a shift (D5)"
    if value("flagged") > _SELDOM:
        yield f"above the limit outside the sector in {_share(value('flagged'))} of clips (D7)"


def _of_output(one: Mapping[str, Any]) -> Iterator[str]:
    if one["covering_wins"]["n"] and one["covering_wins"]["low"] <= 0.5:
        yield "covering the structure is not shown to move it more than covering elsewhere (D3)"
    if one["by_text"]["n"] and one["by_structure"]["n"]:
        letters, structure = one["by_text"]["value"], one["by_structure"]["value"]
        if letters > _READS * structure:
            yield (
                f"letters outside the sector move it by {letters:.3g}, covering the structure by "
                f"{structure:.3g} (D7)"
            )
    if one["complete"]["value"] is not None and one["complete"]["value"] < 1:
        gap = 100 * one["completeness_gap"]["value"]
        yield f"integrated gradients do not always add up within 1 %, on average {gap:.1f} % (D6)"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
