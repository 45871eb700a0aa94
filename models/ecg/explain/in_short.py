"""A waveform pack's checks of explanations in short, from what ``explanations.json`` holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

KIND = "waveform"
"""What ``kind`` says in the figures of a waveform pack."""

COLUMNS = ("output", "on", "waves", "adds up", "inserted", "deleted", "shuffled", "steady")

LEGEND = (
    "Waves: without a wave the output did what is expected of it, of so many waves. Adds up: "
    "integrated gradients within 1 %, share of recordings. Inserted, deleted: areas under the "
    "curves, and those of a random map. Shuffled: rank correlation with the true map, signs "
    "counted, once all weights are shuffled, low is good. Steady: under noise and a shift, high "
    "is good."
)

_ALIKE = 0.5  # rank correlation with a network of shuffled weights
_STEADY = 0.8  # rank correlation under a little noise or a small shift


def rows(figures: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """A line under :data:`COLUMNS` for each output and data set, of the first method."""
    for checked in figures["on"]:
        method = checked["maps"][0]["method"]
        sums = {one["output"]: one for one in checked["sums"]}
        for maps in checked["maps"]:
            if maps["method"] != method:
                continue
            verdicts = [
                one["as_expected"]
                for one in checked["waves"]
                if one["output"] == maps["output"] and one["as_expected"] is not None
            ]
            complete = sums[maps["output"]]["complete"]["value"]
            yield (
                maps["output"],
                f"{checked['records']} {checked['evidence']}",
                f"{sum(verdicts)} of {len(verdicts)}",
                "-" if complete is None else f"{100 * complete:.0f} %",
                f"{_number(maps['insertion'])} ({_number(maps['insertion_by_random'])})",
                f"{_number(maps['deletion'])} ({_number(maps['deletion_by_random'])})",
                _number(maps["randomised"][-1][2]),
                f"{_number(maps['noise'])}, {_number(maps['shift'])}",
            )


def remarks(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The method, empty where it is of none, and what was not passed, in words."""
    for checked in figures["on"]:
        where = f"on {checked['records']} {checked['evidence']}"
        for maps in checked["maps"]:
            said = list(_of_maps(maps))
            if said:
                what = f"{maps['output']} by {maps['method']}"
                yield maps["method"], f"{what}, {where}: {'; '.join(said)}"
        for one in checked["sums"]:
            if (one["complete"]["value"] or 0.0) < 1:
                words = "integrated gradients do not always add up within 1 %"
                yield "", f"{one['output']}, {where}: {words}"
        for one in checked["waves"]:
            if one["as_expected"] is False:
                moves = "stays" if one["need"] == "needed" else "moves"
                what = f"{one['output']}, {where}: {moves} without {one['wave']}"
                by = f"{_number(one['moved'])}, limit {one['limit']:g}"
                yield "", f"{what}, which is {one['need']} ({by})"


def _of_maps(maps: Mapping[str, Any]) -> Iterator[str]:
    blind = [
        name
        for name, better in (("insertion", 1), ("deletion", -1))
        if better * (_value(maps[name]) - _value(maps[f"{name}_by_random"])) <= 0
    ]
    if blind:
        yield f"{' and '.join(blind)} no better than by a random map"
    elif _value(maps["insertion"]) < _value(maps["insertion_by_signal"]) and (
        _value(maps["deletion"]) > _value(maps["deletion_by_signal"])
    ):
        yield "insertion and deletion worse than by the signal's own height"
    if _value(maps["randomised"][-1][2]) >= _ALIKE:
        left = _number(maps["randomised"][-1][2])
        yield f"with all weights shuffled it is still much alike, {left}"
    if min(_value(maps["noise"]), _value(maps["shift"])) < _STEADY:
        yield "it is unsteady under noise or a shift"


def _value(measured: Mapping[str, Any]) -> float:
    found = measured["value"]
    return float("nan") if found is None else float(found)


def _number(measured: Mapping[str, Any]) -> str:
    return "-" if measured["value"] is None else f"{measured['value']:.2f}"
