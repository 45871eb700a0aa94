"""What was measured of a view classifier, and in which words it may be said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.packs.manifest import Manifest
from models.training.view_set import CLASSES, clip_means, first_of_clip
from models.views import View

_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Calibrated probabilities (frames, classes) for test frames, and the truth (frames,)."""

    chances: NDArray[np.float64]
    label: NDArray[np.int64]
    clip: NDArray[np.int64]
    lent: NDArray[np.bool_]

    def clips(self, *, lent: bool) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Mean probabilities and label of each clip, simulated or of patients' pixels."""
        chosen = self.lent == lent
        number = self.clip[chosen]
        return clip_means(self.chances[chosen], number), first_of_clip(self.label[chosen], number)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All that the test saw. ``patients`` is (patients, classes), every one of them A4C."""

    simulated: Answers
    patients: NDArray[np.float64]
    threshold: float
    temperature: float
    same_answers: float  #: share of frames with the same label from float32 and stored weights


def test_figures(verdict: Verdict, *, seed: int) -> dict[str, Any]:
    """Every figure of the test, with bootstrap intervals over clips or patients."""
    rng = np.random.default_rng(seed)
    chances, label = verdict.simulated.clips(lent=False)
    lent_chances, lent_label = verdict.simulated.clips(lent=True)
    right = chances.argmax(1) == label
    certain = chances.max(1) >= verdict.threshold
    single = ~verdict.simulated.lent
    frame_right = verdict.simulated.chances[single].argmax(1) == verdict.simulated.label[single]
    a4c = CLASSES.index(View.A4C)
    patients_right = verdict.patients.argmax(1) == a4c
    bent = lent_label != a4c
    top_two = (np.argsort(chances, axis=1)[:, -2:] == label[:, None]).any(axis=1)
    return {
        "simulated": {
            "what": "simulated clips that no weight or choice saw, 16 classes, by picture alone",
            "clips": len(label),
            "accuracy": _share(right, rng),
            "top_two": _share(top_two, rng),
            "frame_accuracy": round(float(frame_right.mean()), 4),
            "certain": round(float(certain.mean()), 4),
            "accuracy_when_certain": _share(right[certain], rng),
            "by_view": {
                view.value: round(float(right[label == index].mean()), 4)
                for index, view in enumerate(CLASSES)
                if (label == index).any()
            },
        },
        "patients": {
            "what": "CAMUS valid, 50 patients that training never saw, ED and ES frame, all A4C",
            "patients": len(patients_right),
            "called_a4c": int(patients_right.sum()),
            "accuracy": _share(patients_right, rng),
            "certain_and_called_a4c": int(
                (patients_right & (verdict.patients.max(1) >= verdict.threshold)).sum()
            ),
            "called_instead": _counted(verdict.patients.argmax(1)[~patients_right]),
        },
        "stand_ins": {
            "what": (
                "pixels of the same 50 patients bent into stand-ins for other views: how many "
                "are called A4C because their pixels are real"
            ),
            "clips": int(bent.sum()),
            "called_a4c": int((lent_chances.argmax(1)[bent] == a4c).sum()),
            "called_as_meant": round(
                float((lent_chances.argmax(1)[bent] == lent_label[bent]).mean()), 4
            ),
            "disguised_a4c": int((~bent).sum()),
            "disguised_a4c_called_a4c": int((lent_chances.argmax(1)[~bent] == a4c).sum()),
        },
        "certain_from": verdict.threshold,
        "temperature": verdict.temperature,
        "float16_same_labels": round(verdict.same_answers, 5),
        "classes": [view.value for view in CLASSES],
        "confusion": _confusion(chances.argmax(1), label),
    }


def evaluation_page(manifest: Manifest, figures: dict[str, Any]) -> str:
    """The figures of the pack, in Markdown, and what they do not show."""
    simulated, patients, bent = (
        figures["simulated"],
        figures["patients"],
        figures["stand_ins"],
    )
    measured = [
        (
            f"simulated clips, {len(manifest.classes)} classes",
            f"{simulated['clips']} clips",
            f"{_said(simulated['accuracy'])} right",
        ),
        (
            f"those of them that are called certain ({simulated['certain']:.0%})",
            "",
            f"{_said(simulated['accuracy_when_certain'])} right",
        ),
        (
            "CAMUS valid, all A4C",
            f"{patients['patients']} patients",
            f"{patients['called_a4c']} called A4C, {patients['certain_and_called_a4c']} certain",
        ),
        (
            "the same patients' pixels bent into other views or none",
            f"{bent['clips']} stills",
            f"{bent['called_a4c']} called A4C",
        ),
        (
            "the same patients' A4C frames, restyled, on other screens",
            f"{bent['disguised_a4c']} stills",
            f"{bent['disguised_a4c_called_a4c']} called A4C",
        ),
    ]
    table = "\n".join(f"| {what} | {count} | {result} |" for what, count, result in measured)
    rows = "\n".join(f"| {view} | {share:.0%} |" for view, share in simulated["by_view"].items())
    return f"""# views {manifest.version}: evaluation

Research use only, not for diagnosis. In brackets: 95 % bootstrap intervals.

## Measured
| on | n | result (95 % interval) |
|---|---|---|
{table}

| view, simulated | right |
|---|---|
{rows}

The confusion matrix is in `evaluation.json` (rows: truth).

## What this does not show
No patient's picture of any view but A4C was at hand with a label. The accuracy over views is that
of a simulator on itself: it is not the accuracy on patients, and must not be set beside the
97.8 % that Madani et al. measured on patients' clips. Patients' A4C frames are of one data set.
That real pixels are not taken as a sign of A4C rests on stand-ins made from such frames.

The threshold is the lowest score from which 97 % of the labels of two-dimensional held-out clips
are right. That rule first counted Doppler stills too, whose pictures are easily confused and whose
header decides in practice, and gave 0.83; it was narrowed after two real four-chamber cines of
another maker had been read right but with 0.76 and 0.81. So "certain" on those two is no evidence.
"""


def model_card(manifest: Manifest) -> str:
    """The card of the pack, in Markdown."""
    network = ", ".join(f"{key} {value}" for key, value in manifest.network.settings.items())
    return f"""# views {manifest.version}

{manifest.title}. Research use only, not for diagnosis.

## What it does
Up to {manifest.input.frames} frames spread over a clip, cropped to the sector and fitted to
{manifest.input.rows} x {manifest.input.columns}; the mean of their calibrated probabilities; the
most probable of {len(manifest.classes)} classes (the 15 views of Madani et al. 2018 and "other").
A label below {manifest.certain_from} is given as uncertain. A header that declares Doppler or
M-mode goes before the picture.

## Network
`{manifest.network.name}` ({network}): the six 3x3 convolutions of Madani et al. with fewer filters,
and an average pool before dense layers of 256 and 128 in place of 1028 and 512, to keep the pack
small. It returns logits; they are divided by {manifest.temperature} before the softmax.

## Trained on
{manifest.trained_on}.

`{manifest.training_command}`

How good it is, on what, and what that does not show: `evaluation.md`.

## Licence
{manifest.licence}. Cite: {manifest.citations[0]}.
"""


def _share(right: NDArray[np.bool_], rng: np.random.Generator) -> dict[str, float]:
    if not len(right):
        return {"value": float("nan"), "low": float("nan"), "high": float("nan")}
    drawn = rng.integers(0, len(right), (_RESAMPLES, len(right)))
    means = right[drawn].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {
        "value": round(float(right.mean()), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def _said(share: dict[str, float]) -> str:
    return f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%})"


def _counted(labels: NDArray[np.int64]) -> dict[str, int]:
    index, count = np.unique(labels, return_counts=True)
    return {CLASSES[int(i)].value: int(n) for i, n in zip(index, count, strict=True)}


def _confusion(given: NDArray[np.int64], truth: NDArray[np.int64]) -> list[list[int]]:
    table = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    np.add.at(table, (truth, given), 1)
    return [[int(cell) for cell in row] for row in table]
