"""What was measured of a view classifier, and in which words it may be said."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.examples import get_path

from models.clip import ClipError, Mode, read_clip
from models.evaluation import metrics
from models.packs.manifest import Manifest
from models.training.view_set import CLASSES, clip_means, first_of_clip
from models.views import View, ViewReader

_STILLS = {Mode.PW: View.PW, Mode.CW: View.CW, Mode.M_MODE: View.M_MODE}
_A4C = CLASSES.index(View.A4C)
_EXAMPLES = {
    "rgb_color": "a small organ, two panels with power Doppler",
    "palette_color": "convex probe, nearly blank",
    "jpeg2k": "the same organ, larger, two panels with power Doppler",
    "ybr_color": "A4C 30 frames",
}
"""pydicom's own ultrasound examples, and what they show."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Calibrated probabilities (frames, classes) for test frames, and the truth (frames,)."""

    chances: NDArray[np.float64]
    label: NDArray[np.int64]
    clip: NDArray[np.int64]
    lent: NDArray[np.bool_]
    mode: NDArray[np.str_]  #: what the header of each frame's object says

    def clips(
        self, *, lent: bool, header: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Mean probabilities and label of each clip, simulated or of patients' pixels.

        With ``header`` as :class:`models.views.ViewReader` gives them: what the header says of
        the mode goes before the picture.
        """
        chosen = self.lent == lent
        number = self.clip[chosen]
        means = clip_means(self.chances[chosen], number)
        if header:
            first = np.unique(number, return_index=True)[1]
            means = with_header(means, self.mode[chosen][first])
        return means, first_of_clip(self.label[chosen], number)


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedFile:
    """A machine's file: what it shows, and what the reader called it."""

    name: str
    shows: str
    said: str  #: the view; or why there is none
    score: float
    certain: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All that the test saw. ``patients`` is (patients, classes), every one of them A4C."""

    simulated: Answers
    patients: NDArray[np.float64]
    files: tuple[NamedFile, ...]
    threshold: float
    temperature: float
    same_answers: float  #: share of frames with the same label from float32 and stored weights
    data_sha256: str


def with_header(means: NDArray[np.float64], modes: Sequence[str]) -> NDArray[np.float64]:
    """(clips, classes): a declared still is that, and what is declared two-dimensional is none."""
    out = np.array(means)
    stills = np.array([view in _STILLS.values() for view in CLASSES])
    for row, mode in zip(out, modes, strict=True):
        if mode in _STILLS:
            row[:] = np.array([view is _STILLS[Mode(mode)] for view in CLASSES], float)
        elif mode in (Mode.TWO_D, Mode.COLOUR):
            row[stills] = 0.0
            row /= max(float(row.sum()), 1e-12)
    return out


def name_files(reader: ViewReader, sources: Path | None) -> tuple[NamedFile, ...]:
    """Name machines' files: pydicom's examples and those of a folder.

    ``sources`` is a table (tab-separated) beside the files, with the columns "file" and "what".
    """
    listed = [(Path(get_path(name)), name, shows) for name, shows in _EXAMPLES.items()]
    if sources is not None:
        with sources.open(newline="") as table:
            for row in csv.DictReader(table, delimiter="\t"):
                path = sources.parent / row["file"]
                listed.append((path, path.stem, row["what"]))
    named = []
    for path, name, shows in listed:
        try:
            call = reader.read(read_clip(path))
        except ClipError as error:
            named.append(
                NamedFile(name=name, shows=shows, said=str(error), score=0.0, certain=False)
            )
            continue
        said = call.view.value + (f" ({call.reason})" if call.reason else "")
        named.append(
            NamedFile(
                name=name, shows=shows, said=said, score=round(call.score, 3), certain=call.certain
            )
        )
    return tuple(named)


def test_figures(verdict: Verdict, *, seed: int) -> dict[str, Any]:
    """Every figure of the test, with bootstrap intervals over clips or patients."""
    lent_chances, lent_label = verdict.simulated.clips(lent=True)
    patients_right = verdict.patients.argmax(1) == _A4C
    certain = verdict.patients.max(1) >= verdict.threshold
    bent = lent_label != _A4C
    lent_a4c = lent_chances.argmax(1) == _A4C
    lent_certain = lent_chances.max(1) >= verdict.threshold
    single = ~verdict.simulated.lent
    frame_right = verdict.simulated.chances[single].argmax(1) == verdict.simulated.label[single]
    return {
        "simulated": {
            "what": "simulated clips that no weight or choice saw, 16 classes",
            "frame_accuracy": round(float(frame_right.mean()), 4),
            "by_picture": _of_clips(*verdict.simulated.clips(lent=False), verdict.threshold, seed),
            "as_read": _of_clips(
                *verdict.simulated.clips(lent=False, header=True), verdict.threshold, seed
            ),
        },
        "patients": {
            "what": "CAMUS valid, patients that training never saw, ED and ES frame, all A4C",
            "patients": len(patients_right),
            "called_a4c": int(patients_right.sum()),
            "accuracy": _share(patients_right, seed),
            "certain_and_called_a4c": int((patients_right & certain).sum()),
            "certain_and_called_another": int((~patients_right & certain).sum()),
            "called_instead": _counted(verdict.patients.argmax(1)[~patients_right]),
        },
        "stand_ins": {
            "what": (
                "pixels of the same patients bent into stand-ins for other views: how many "
                "are called A4C because their pixels are real"
            ),
            "clips": int(bent.sum()),
            "called_a4c": int(lent_a4c[bent].sum()),
            "certain_and_called_a4c": int((lent_a4c & lent_certain)[bent].sum()),
            "called_as_meant": round(
                float((lent_chances.argmax(1)[bent] == lent_label[bent]).mean()), 4
            ),
            "disguised_a4c": int((~bent).sum()),
            "disguised_a4c_called_a4c": int(lent_a4c[~bent].sum()),
            "disguised_a4c_certain": int((lent_a4c & lent_certain)[~bent].sum()),
        },
        "files": [asdict(named) for named in verdict.files],
        "certain_from": verdict.threshold,
        "temperature": verdict.temperature,
        "float16_same_labels": round(verdict.same_answers, 5),
        "data_sha256": verdict.data_sha256,
        "classes": [view.value for view in CLASSES],
    }


def _of_clips(
    chances: NDArray[np.float64], label: NDArray[np.int64], threshold: float, seed: int
) -> dict[str, Any]:
    given, score = chances.argmax(1), chances.max(1)
    right, certain = given == label, score >= threshold
    said_a4c = certain & (given == _A4C)
    wrong = score[~right]
    return {
        "clips": len(label),
        "accuracy": _share(right, seed),
        "top_two": _share(metrics.top_k(chances, label, 2), seed),
        "certain": _share(certain, seed),
        "accuracy_when_certain": _share(right[certain], seed),
        "a4c_certain_precision": _share((label == _A4C)[said_a4c], seed),
        "a4c_certain_recall": _share(said_a4c[label == _A4C], seed),
        "a4c_certain_of_others": int((said_a4c & (label != _A4C)).sum()),
        "score_when_right": _quartiles(score[right]),
        "score_when_wrong": _quartiles(wrong),
        "calibration_error": round(metrics.calibration_error(right, score), 4),
        "reliability": [
            {key: round(value, 4) for key, value in asdict(each).items()}
            for each in metrics.reliability(right, score)
        ],
        "by_view": {
            view.value: {
                "clips": int((label == index).sum()),
                "right": round(float(right[label == index].mean()), 4),
                "certain": round(float(certain[label == index].mean()), 4),
                "auc": round(metrics.auc(label == index, chances[:, index]), 4),
            }
            for index, view in enumerate(CLASSES)
            if (label == index).any()
        },
        "confusion": metrics.confusion(label, given, len(CLASSES)).tolist(),
    }


_RULE = """The threshold is the lowest score from which on, of held-out two-dimensional clips, 98 %
of the labels of simulated ones are right and 97 % of the A4C labels of all, patients' pixels
included. Both shares were set after a look at held-out clips."""


def evaluation_page(manifest: Manifest, figures: dict[str, Any], *, rule: str = _RULE) -> str:
    """The figures of the pack, in Markdown, and what they do not show.

    ``rule`` says how the threshold was chosen.
    """
    simulated, patients, bent = figures["simulated"], figures["patients"], figures["stand_ins"]
    picture, read = simulated["by_picture"], simulated["as_read"]
    rows = [
        ("right", "accuracy"),
        ("right view among the two likeliest", "top_two"),
        ("called certain", "certain"),
        ("right, of those called certain", "accuracy_when_certain"),
        ("A4C, of those called A4C and certain", "a4c_certain_precision"),
        ("called A4C and certain, of the A4C clips", "a4c_certain_recall"),
    ]
    table = _table(
        ("", "as the node reads them", "by picture alone"),
        [(what, _said(read[key]), _said(picture[key])) for what, key in rows]
        + [
            (
                "expected calibration error",
                f"{read['calibration_error']:.3f}",
                f"{picture['calibration_error']:.3f}",
            ),
            (
                "mean area under the ROC curve",
                *(
                    f"{np.mean([each['auc'] for each in one['by_view'].values()]):.4f}"
                    for one in (read, picture)
                ),
            ),
            ("score when right, median and quartiles", *_scores(read, picture, "right")),
            ("score when wrong, median and quartiles", *_scores(read, picture, "wrong")),
        ],
    )
    by_view = _table(
        ("view", "clips", "right, as read", "certain", "right, by picture", "area under ROC"),
        [
            (
                view,
                each["clips"],
                f"{read['by_view'][view]['right']:.0%}",
                f"{read['by_view'][view]['certain']:.0%}",
                f"{each['right']:.0%}",
                f"{each['auc']:.4f}",
            )
            for view, each in picture["by_view"].items()
        ],
    )
    names = figures["classes"]
    confused = _table(
        ("truth", *names),
        [
            (name, *(count or "." for count in line))
            for name, line in zip(names, picture["confusion"], strict=True)
        ],
    )
    reliable = _table(
        ("score", "clips", "mean score", "right"),
        [
            (
                f"{int(each['confidence'] * 10) / 10:.1f}",
                each["count"],
                f"{each['confidence']:.3f}",
                f"{each['share']:.3f}",
            )
            for each in picture["reliability"]
        ],
    )
    instead = ", ".join(f"{count} as {view}" for view, count in patients["called_instead"].items())
    real = _table(
        ("on", "n", "called A4C", "and certain"),
        [
            (
                "CAMUS valid, all A4C",
                f"{patients['patients']} patients",
                patients["called_a4c"],
                patients["certain_and_called_a4c"],
            ),
            (
                "the same patients' A4C frames, restyled, on other screens",
                f"{bent['disguised_a4c']} stills",
                bent["disguised_a4c_called_a4c"],
                bent["disguised_a4c_certain"],
            ),
            (
                "the same patients' pixels bent into other views or none",
                f"{bent['clips']} stills",
                bent["called_a4c"],
                bent["certain_and_called_a4c"],
            ),
        ],
    )
    files = _table(
        ("file", "what it shows", "called", "score", "certain"),
        [
            (
                each["name"],
                each["shows"],
                each["said"],
                f"{each['score']:.2f}",
                "yes" if each["certain"] else "no",
            )
            for each in figures["files"]
        ],
    )
    return f"""# views {manifest.version}: evaluation

Research use only, not for diagnosis. In brackets: 95 % intervals over clips.

## Simulated clips
{picture["clips"]} clips of {len(manifest.classes)} classes that no weight and no choice saw.
"As the node reads them": a header that declares Doppler, M-mode or a two-dimensional picture goes
before the picture (three fifths of these files declare it). A label is certain from a score of
{manifest.certain_from} on; below, it is "uncertain".

{table}

{by_view}

Counts by picture alone, rows the truth:

{confused}

Scores by picture alone, in tenths, and how often the label was right:

{reliable}

## Patients
{real}

CAMUS patients that were called something else: {instead or "none"};
{patients["certain_and_called_another"]} of them with certainty. Of the bent stills
{bent["called_as_meant"]:.0%} got the label they were bent into.

## Machines' files
What is not an apical four-chamber view should not be called so.

{files}

## What this does not show
No patient's picture of any view but A4C was at hand with a label. The accuracy over views is that
of a simulator on itself: it is not the accuracy on patients, and must not be set beside the
97.8 % that Madani et al. measured on patients' clips. Patients' A4C frames are of one data set.
That real pixels are not taken as a sign of A4C rests on stand-ins made from such frames, and on the
few files above. The two long cines among those had been seen by those who made the first version.

{rule}
"""


def model_card(manifest: Manifest) -> str:
    """The card of the pack, in Markdown."""
    settings = manifest.network.settings
    network = ", ".join(f"{key} {value}" for key, value in settings.items())
    strided = ", the first of them 4x4 with stride two" if settings.get("strided") else ""
    return f"""# views {manifest.version}

{manifest.title}. Research use only, not for diagnosis.

## What it does
Up to {manifest.input.frames} frames spread over a clip, cropped to the sector and fitted to
{manifest.input.rows} x {manifest.input.columns}; the mean of their calibrated probabilities; the
most probable of {len(manifest.classes)} classes (the 15 views of Madani et al. 2018 and "other").
A label below {manifest.certain_from} is given as uncertain. A header that declares Doppler or
M-mode goes before the picture.

## Network
`{manifest.network.name}` ({network}): the six convolutions of Madani et al. with filters of our
own choice{strided}, and an average pool before dense layers of 256 and 128 in place of 1028 and
512, to keep the pack small and quick. It returns logits; they are divided by
{manifest.temperature} before the softmax.

## Trained on
{manifest.trained_on}.

`{manifest.training_command}`

How good it is, on what, and what that does not show: `evaluation.md`.

## Licence
{manifest.licence}. Cite: {manifest.citations[0]}.
"""


def _table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _share(right: NDArray[np.bool_], seed: int) -> dict[str, float]:
    return {key: round(value, 4) for key, value in asdict(metrics.share(right, seed=seed)).items()}


def _said(share: dict[str, float]) -> str:
    return f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%})"


def _quartiles(scores: NDArray[np.float64]) -> list[float]:
    if not len(scores):
        return []
    return [round(float(each), 3) for each in np.quantile(scores, [0.25, 0.5, 0.75])]


def _scores(*blocks: Any) -> list[str]:
    *figures, key = blocks
    found = [one[f"score_when_{key}"] for one in figures]
    return [f"{q[1]:.3f} ({q[0]:.3f} to {q[2]:.3f})" if q else "none" for q in found]


def _counted(labels: NDArray[np.int64]) -> dict[str, int]:
    index, count = np.unique(labels, return_counts=True)
    return {CLASSES[int(i)].value: int(n) for i, n in zip(index, count, strict=True)}
