"""From a trained network to a pack that says how good it is.

The intervals come from training patients that no weight saw; the figures from the validation
split, which is read once, at the very end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from models.clip import Clip
from models.data.camus import CITATION, LICENCE, Patient
from models.evaluation import camus as judge
from models.evaluation.metrics import error_quantiles
from models.finding import Evidence, Kind
from models.packs import Pack, PackKind, load_pack, write_pack
from models.readers import RegressionReader, TracingReader

LICENCE_TEXT = f"""\
The weights in this folder were trained on CAMUS and carry its licence:

    Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International (CC BY-NC-SA 4.0)
    https://creativecommons.org/licenses/by-nc-sa/4.0/legalcode

For non-commercial scientific research only. Not a medical device; not for diagnosis.
Weights derived from these must carry the same licence. Cite:

    {CITATION}

The software of echonode around them has its own licence (Apache-2.0).
"""

_TESTED_ON = "CAMUS validation split, 50 patients, two traced frames each, single plane"


def pack_camus(
    out: Path,
    manifest: Mapping[str, Any],
    network: keras.Model,
    *,
    held: Sequence[Patient],
    valid: Sequence[Patient],
    interval_clip: Callable[[Patient], Clip],
    card: str,
) -> Pack:
    """Write the pack with its intervals, figures, licence and card.

    ``manifest`` is that of :func:`models.packs.write_pack`; its outputs get ``low_error`` and
    ``high_error`` from ``held`` (shown as ``interval_clip``) and ``figures`` from ``valid``.
    """
    outputs = [dict(output) for output in manifest["outputs"]]
    pack = write_pack(out, manifest, network)
    reads = judge.read_patients(_reader(pack), held, interval_clip)
    for output in outputs:
        read = reads[output["name"]]
        given = read.given
        low, high = error_quantiles(read.truth[given], read.value[given])
        output["low_error"], output["high_error"] = round(low, 2), round(high, 2)
    pack = write_pack(out, {**manifest, "outputs": outputs}, network)
    report = judge.evaluate(pack, valid)
    for output in outputs:
        output["figures"] = {
            key: report[key][output["name"]]
            for key in ("two_real_frames", "cines_made_from_patients")
        }
        figures = output["figures"]["two_real_frames"]
        output["tested_on"] = tested_words(output["unit"], figures)
        output["caution"] = caution(figures)
    write_pack(out, {**manifest, "outputs": outputs}, network)
    judge.write_report(out, report)
    (out / "LICENSE").write_text(LICENCE_TEXT)
    (out / "MODEL_CARD.md").write_text(card)
    return load_pack(out)


def tested_words(unit: str, figures: Mapping[str, Any]) -> str:
    """On what an output was tested and how that went, for the reader of a report.

    An output that was not better than always saying the patients' mean says so itself.
    """
    mae, r2 = figures["mae"], figures["r2"]
    guess = figures["mae_of_predicting_the_mean"]
    unit = "points" if unit == "%" else unit
    words = (
        f"{_TESTED_ON}: mean absolute error {mae[0]:.1f} {unit} ({mae[1]:.1f} to {mae[2]:.1f}) "
        f"against {guess:.1f} of always saying the mean, R2 {r2[0]:.2f} "
        f"({r2[1]:.2f} to {r2[2]:.2f})"
    )
    warning = caution(figures)
    return f"{words}: {warning.upper()}" if warning else words


def caution(figures: Mapping[str, Any]) -> str:
    """What stands beside every value of an output that failed its test; empty where it did not."""
    return "" if figures["r2"][1] > 0 else "not shown to be better than saying the patients' mean"


def patient_output(name: str, unit: str, **more: object) -> dict[str, object]:
    """An output that was tested on the validation patients."""
    return {
        "name": name,
        "kind": Kind.MEASUREMENT,
        "unit": unit,
        "evidence": Evidence.PATIENTS,
        "tested_on": _TESTED_ON,
        **more,
    }


def camus_manifest(name: str, kind: PackKind, title: str, seed: int) -> dict[str, object]:
    """What the manifests of packs trained on CAMUS share."""
    return {
        "name": name,
        "version": "0.1.0",
        "kind": kind,
        "title": title,
        "licence": LICENCE,
        "citations": (CITATION,),
        "training_command": (
            f"python -m models.training.{name} --camus DIR --out models/packs/{name} --seed {seed}"
        ),
    }


def _reader(pack: Pack) -> TracingReader | RegressionReader:
    if pack.manifest.kind is PackKind.TRACING:
        return TracingReader(pack)
    return RegressionReader(pack)
