"""``echonode simulate --ecg``: ECGs of known rhythm and intervals as DICOM files and pictures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from node.cli.output import ExitCode, Problem, plain, print_json, print_table, print_text

if TYPE_CHECKING:
    from models.ecg.simulator import EcgWanted, SimulatedEcg

ANY = "any"
"""A rhythm that is drawn, as everything else that is not given: one of a clinic's many."""


@dataclass(frozen=True, kw_only=True)
class AskedEcgs:
    """What the command line asks of every ECG; None: drawn from the seed."""

    rhythm: str
    conduction: str | None
    heart_rate_bpm: float | None
    pr_ms: float | None
    qrs_ms: float | None
    qt_ms: float | None
    sex: str | None
    p_visible: bool
    concordant_t: bool
    noise: float | None
    rate_hz: float | None
    duration_s: float | None
    scheme: str
    ecg_class: str
    with_median: bool
    with_annotations: bool


@dataclass(frozen=True, kw_only=True)
class _Written:
    """An ECG's file, and what is in it."""

    file: str
    sop_instance_uid: str
    study_instance_uid: str
    seed: int
    rhythm: str
    conduction: str
    rate_hz: float
    duration_s: float
    truths: Mapping[str, float]
    pictures: tuple[str, ...]


def write_ecgs(
    asked: AskedEcgs,
    *,
    seeds: Sequence[int],
    study_uid: str,
    out: Path,
    png: Path | None,
    truth: Path | None,
    as_json: bool,
) -> None:
    """Write an ECG for each seed, and say what is true of them.

    Raises
    ------
    Problem
        If something asked for cannot be simulated or written.
    """
    one_file = out.suffix.lower() == ".dcm"
    several = len(seeds) > 1
    if one_file and several:
        raise Problem(f"--out {out}: {len(seeds)} ECGs need a folder", ExitCode.USAGE)
    written, truths = [], []
    for number, seed in enumerate(seeds, start=1):
        one = _draw(asked, seed)
        data, uid = _encode(one, asked, study_uid, number)
        file = out if one_file else out / f"ecg-{seed}.dcm"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        picture = png
        if png is not None and several:
            picture = png.with_name(f"{png.stem}-{seed}{png.suffix}")
        pictures = () if picture is None else (_write_png(one, picture),)
        written.append(
            _Written(
                file=str(file),
                sop_instance_uid=uid,
                study_instance_uid=study_uid,
                seed=seed,
                rhythm=one.rhythm.value,
                conduction=one.wanted.conduction.value,
                rate_hz=one.wanted.rate_hz,
                duration_s=one.wanted.duration_s,
                truths=one.truths,
                pictures=pictures,
            )
        )
        truths.append(_whole_truth(written[-1], one))
    if truth is not None:
        truth.parent.mkdir(parents=True, exist_ok=True)
        truth.write_text(json.dumps(plain(truths if several else truths[0]), indent=2) + "\n")
    if as_json:
        print_json({"ecgs": written})
    else:
        _print(written)


def _draw(asked: AskedEcgs, seed: int) -> SimulatedEcg:
    from models.ecg.simulator import simulate_ecg

    try:
        return simulate_ecg(_wanted(asked, seed), seed)
    except ValueError as error:
        raise Problem(str(error), ExitCode.USAGE) from error


def _wanted(asked: AskedEcgs, seed: int) -> EcgWanted:
    import numpy as np

    from models.ecg.simulator import Conduction, EcgWanted, Rhythm, draw_wanted

    given: dict[str, Any] = {
        name: value
        for name in ("heart_rate_bpm", "pr_ms", "qrs_ms", "qt_ms", "noise", "rate_hz", "duration_s")
        if (value := getattr(asked, name)) is not None
    }
    if asked.conduction is not None:
        given["conduction"] = _named(Conduction, "--conduction", asked.conduction)
    if asked.sex is not None:
        given["male"] = _is_male(asked.sex)
    if not asked.p_visible:
        given["p_visible"] = False
    if asked.concordant_t:
        given["concordant_t"] = True
    if asked.rhythm.lower() == ANY:
        return dataclasses.replace(draw_wanted(np.random.default_rng([seed, 2])), **given)
    return EcgWanted(rhythm=_named(Rhythm, "--rhythm", asked.rhythm, ANY), **given)


_Name = TypeVar("_Name", bound=StrEnum)


def _named(names: type[_Name], option: str, text: str, *others: str) -> _Name:
    try:
        return names(text.lower())
    except ValueError:
        known = ", ".join([*names, *others])
        raise Problem(f"{option} {text}: give one of {known}", ExitCode.USAGE) from None


def _is_male(text: str) -> bool:
    if text.lower() not in ("f", "m", "female", "male"):
        raise Problem(f"--sex {text}: give F or M", ExitCode.USAGE)
    return text.lower().startswith("m")


def _encode(one: SimulatedEcg, asked: AskedEcgs, study: str, number: int) -> tuple[bytes, str]:
    from models.ecg.simulator.dicom import EcgClass, Scheme, to_bytes, to_dicom

    try:
        dataset = to_dicom(
            one,
            study_uid=study,
            ecg_class=_named(EcgClass, "--object", asked.ecg_class),
            scheme=_named(Scheme, "--scheme", asked.scheme),
            with_median=asked.with_median,
            with_annotations=asked.with_annotations,
            instance_number=number,
        )
    except ValueError as error:
        raise Problem(str(error), ExitCode.USAGE) from error
    return to_bytes(dataset), str(dataset.SOPInstanceUID)


def _write_png(one: SimulatedEcg, file: Path) -> str:
    from PIL import Image

    from models.ecg.explain.paper import EcgShown, draw_ecg

    file.parent.mkdir(parents=True, exist_ok=True)
    page = draw_ecg(one.ecg, EcgShown(title="Simulated ECG, of no patient"))
    Image.fromarray(page).save(file)
    return str(file)


def _whole_truth(written: _Written, one: SimulatedEcg) -> dict[str, Any]:
    """All that is true, waves and R peaks in samples too."""
    return {
        **dataclasses.asdict(written),
        "waves": one.waves,
        "r_peaks": one.r_peaks.tolist(),
    }


def _print(written: Sequence[_Written]) -> None:
    print_table(
        "Simulated ECGs",
        ("file", "rhythm", "conduction", "rate", "PR ms", "QRS ms", "QT ms", "s", "Hz"),
        [
            (
                ecg.file,
                ecg.rhythm,
                ecg.conduction,
                *(
                    _rounded(ecg.truths.get(name))
                    for name in ("heart_rate", "pr_interval", "qrs_duration", "qt_interval")
                ),
                f"{ecg.duration_s:.1f}",
                f"{ecg.rate_hz:g}",
            )
            for ecg in written
        ],
        long=("file",),
    )
    for ecg in written:
        for path in ecg.pictures:
            print_text(path)


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}"
