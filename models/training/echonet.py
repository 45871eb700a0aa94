"""Train the ``echonet`` pack: volumes, ejection fraction and atrium from frames alone.

    echonode train echonet --dataset DIR --out models/packs/echonet
    echonode train echonet --dataset DIR --out OUT --set protocol=paper --set task=ef --grid

Two protocols. ``paper`` is that of Ghorbani et al. 2020 (npj Digital Medicine 3:10) at full size:
Inception-ResNet-v1, 299 x 299, one network for each task, a random start, squared error (or
cross-entropy), Adam with weight decay, 24 frames a batch, each frame labelled with its clip's
value, rotation within 20 degrees and brightness within 0.1; it takes any data set, is what 2,500
patients and a GPU deserve, and costs about 1 s a step on a recent GPU and 15 s on a CPU core (the
paper: 30 hours for one task on 172,080 frames).

``frames`` is what 351 patients with tracings and a CPU can bear, and is otherwise in these ways:

- A frame is labelled with **its own** size, not with its clip's value: the network says the
  logarithm of the left ventricle's volume in this very frame. A clip's end-diastolic volume is
  then the highest of its frames, the end-systolic one the lowest, and the ejection fraction comes
  of their ratio. No single frame knows a fraction of two volumes; trained the paper's way on so
  few patients the network says everybody's mean.
- Frames of one heart come in pairs, and the difference of their two logarithms is taught beside
  each: that difference is the ejection fraction, and what a frame gets wrong by the patient's
  habitus both frames get wrong alike.
- The left atrium's area and volume, and hypertrophy, are further heads of the same network.
- Its inner layers learn where cavity, myocardium and atrium are; that part is thrown away.
- Frames are 128 x 128, the network is a quarter as wide, and frames are also mirrored, scaled and
  restyled; further frames are warped out of the two real ones (:mod:`models.data.cines`).
- Sizes are learnt in network pixels, because a frame scaled to a fixed side has lost its scale.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from models.data.camus import CLASSES, CamusDataset
from models.data.dataset import Dataset
from models.evaluation.metrics import auc
from models.finding import Evidence, Kind
from models.networks import build_network
from models.networks.inception_resnet_v1 import EARLY, MIDDLE
from models.packs import InputSpec, Join, Link, Pack, PackKind
from models.preprocess import normalise
from models.tasks import TASKS
from models.training import loop
from models.training.augment import Geometry
from models.training.echonet_frames import (
    FrameBatches,
    Frames,
    Head,
    Serving,
    Targets,
    Told,
    clip_values,
    labelled_clips,
    map_loss,
    numbers_loss,
    stored,
    traced_clip,
)
from models.training.recipe import Recipe, RecipeError, Trial, paper_grid

log = logging.getLogger(__name__)

PAPER_CITATION = (
    "A. Ghorbani, D. Ouyang, A. Abid, et al., Deep learning interpretation of echocardiograms, npj "
    "Digital Medicine 3:10, 2020, doi 10.1038/s41746-019-0216-8"
)
_AT_ONCE = 48  # frames in one call while judging: few calls, since each runs layer by layer
_FRAMES_FORMAT = 1  # of the frames on disk: another number makes them anew


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Everything that is settled before a network sees a frame."""

    name: str
    heads: tuple[Head, ...]
    told: tuple[Told, ...]
    spec: InputSpec
    width: float
    serving: Serving
    epochs: int
    rate: float
    weight_decay: float
    within: float = 0.0  #: weight of differences within a clip
    maps: float = 0.0  #: weight of where the structures are
    own_frame: bool = False  #: frames have their own sizes; needs tracings
    most_held: int = 1000  #: clips that are judged in training

    @property
    def power_of(self) -> Mapping[str, int]:
        """Of the pixel's side in each output."""
        return {
            output.name: 0 if output.join is Join.EJECTION else self.heads[output.head].power
            for output in self.told
        }


FRAMES = Protocol(
    name="frames",
    heads=(
        Head(name="lv_volume", link=Link.LOG, power=3, moves=True),
        Head(name="la_area", link=Link.LOG, power=2, weight=0.3),
        Head(name="la_volume", link=Link.LOG, power=3, weight=0.3),
        Head(name="lvh", score=True, weight=0.3),
        Head(name="wall", link=Link.LOG, power=1, weight=0.3),
    ),
    told=(
        Told(name="ef", head=0, join=Join.EJECTION),
        Told(name="edv", head=0, join=Join.HIGHEST),
        Told(name="esv", head=0, join=Join.LOWEST),
        Told(name="la_area", head=1, join=Join.HIGHEST),
        Told(name="la_volume", head=2, join=Join.HIGHEST),
        Told(name="lvh", head=3),
    ),
    spec=InputSpec(rows=128, columns=128, mean=0.2, std=0.2, frames=20, interval_ms=100.0),
    width=0.25,
    serving=Serving(),
    epochs=70,
    rate=2e-3,
    weight_decay=1e-2,
    within=2.0,
    maps=2.0,
    own_frame=True,
)
"""What ships: see the module's docstring."""


def paper(task: str) -> Protocol:
    """The protocol of Ghorbani et al. 2020 for one task of :data:`models.tasks.TASKS`.

    Raises
    ------
    models.training.recipe.RecipeError
        If there is no such task.
    """
    if task not in TASKS:
        raise RecipeError(f"task={task}: no task; there are {', '.join(TASKS)}")
    score = TASKS[task].kind is Kind.SCORE
    return Protocol(
        name="paper",
        heads=(Head(name=task, score=score, power=_POWERS.get(task, 0)),),
        told=(Told(name=task, head=0),),
        spec=InputSpec(rows=299, columns=299, mean=0.2, std=0.2, frames=20, interval_ms=100.0),
        width=1.0,
        serving=Serving(
            batch=24,
            a_clip=1,
            geometry=Geometry(smallest=1.0, largest=1.0, stretch=0.0, shift=0.0, mirror=0.0),
            restyled=0.0,
        ),
        epochs=15,
        rate=1e-3,
        weight_decay=1e-3,
    )


_POWERS = {"edv": 3, "esv": 3, "la_volume": 3, "la_area": 2, "ra_length": 1}


def fit(datasets: Sequence[Dataset], trial: Trial) -> float:
    """Train; the mean over the outputs of the held-out error over that of saying the mean."""
    network = train(_protocol(trial), datasets, trial)
    return network.score


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network at the end of its training, and what its numbers mean."""

    network: keras.Model
    targets: Targets
    score: float
    clips: int


def train(protocol: Protocol, datasets: Sequence[Dataset], trial: Trial) -> Trained:
    """Fit a protocol's network; run again, it goes on, or only reads what is there."""
    frames = _frames(protocol, datasets, "train", trial)
    targets = _targets(frames, protocol, trial)
    network = build_network("inception_resnet_v1", protocol.spec, network_settings(protocol))
    taught, grids = _taught(network, protocol)
    batches = FrameBatches(
        frames,
        protocol.heads,
        targets,
        protocol.spec,
        protocol.serving,
        grids=grids,
        seed=trial.seed,
    )
    epochs = trial.epochs or protocol.epochs
    losses: list[Any] = [
        numbers_loss(protocol.heads, protocol.serving.a_clip, protocol.within),
        *(map_loss for _ in grids),
    ]
    decay = protocol.weight_decay if trial.weight_decay is None else trial.weight_decay
    taught.compile(
        optimizer=keras.optimizers.AdamW(
            loop.cosine(trial.rate or protocol.rate, epochs * len(batches)), weight_decay=decay
        ),
        loss=losses,
        loss_weights=[1.0, *(protocol.maps for _ in grids)],
        jit_compile=False,  # compiling so many layers takes longer than it saves
    )
    held = _frames(protocol, datasets, "held", trial)
    fitted = loop.fit(
        taught,
        batches,
        epochs=epochs,
        work=trial.work,
        seed=trial.seed,
        score=lambda _: judge(network, held, protocol, targets),
        every=max(1, epochs // 12),
    )
    return Trained(network=network, targets=targets, score=fitted.score, clips=frames.clips)


def judge(
    network: keras.Model, held: Frames, protocol: Protocol, targets: Targets
) -> dict[str, float]:
    """Errors on held-out clips, in network pixels; ``held`` is the one that counts.

    Of a measurement its error over that of saying the mean, of a score 2 - 2 AUC: both are 1 where
    the network knows nothing.
    """
    values = predict(network, held, protocol, targets)
    found, shares = {}, []
    for place, output in enumerate(protocol.told):
        truth, value = held.truths[:, place], values[:, place]
        known = np.isfinite(truth) & np.isfinite(value)
        if not known.any() or np.ptp(truth[known]) == 0:
            continue
        truth, value = truth[known], value[known]
        if protocol.heads[output.head].score:
            area = auc(truth > 0.5, value)
            found[f"{output.name}_auc"] = area
            shares.append(2.0 - 2.0 * area)
            continue
        error = float(np.abs(value - truth).mean())
        spread = float(((truth - truth.mean()) ** 2).sum())
        found[f"{output.name}_r2"] = 1.0 - float(((value - truth) ** 2).sum()) / spread
        if protocol.power_of[output.name] == 0:
            found[f"{output.name}_mae"] = error
        shares.append(error / float(np.abs(truth - truth.mean()).mean()))
    return {**found, "held": float(np.mean(shares)) if shares else float("nan")}


def predict(
    network: keras.Model, frames: Frames, protocol: Protocol, targets: Targets
) -> NDArray[np.float64]:
    """(clips, outputs) in network pixels, of the real frames of each clip."""
    ends = [
        (int(begin), int(begin + count))
        for begin, count in zip(frames.starts[:-1], frames.real, strict=True)
    ]
    chosen = np.concatenate([np.arange(begin, end) for begin, end in ends])
    raw = np.concatenate(
        [
            keras.ops.convert_to_numpy(
                network(normalise(frames.greys[part], protocol.spec), training=False)
            )
            for part in np.array_split(chosen, -(-len(chosen) // _AT_ONCE))
        ]
    )
    clips = np.split(raw, np.cumsum(frames.real)[:-1])
    return np.stack([clip_values(each, protocol.heads, protocol.told, targets) for each in clips])


def pack(datasets: Sequence[Dataset], trial: Trial, out: Path) -> Pack:
    """The pack of a finished training, with its evidence on the data sets."""
    from models.training.packing import pack_with_evidence  # evaluation draws: not for training

    protocol = _protocol(trial)
    trained = train(protocol, datasets, trial)
    given = "".join(
        f" --set {key}={value}" for key, value in sorted(trial.settings.items()) if key != "cache"
    )
    patients = all(one.evidence is Evidence.PATIENTS for one in datasets)
    manifest = {
        "name": "echonet",
        "version": "0.2.0",
        "kind": PackKind.REGRESSION,
        "title": "EchoNet's frame regressor, A4C",
        "network": {"name": "inception_resnet_v1", "settings": network_settings(protocol)},
        "input": protocol.spec.model_dump(),
        "outputs": outputs(
            protocol, trained.targets, Evidence.PATIENTS if patients else Evidence.SIMULATED
        ),
        "citations": (*(one.citation for one in datasets if one.citation), PAPER_CITATION),
        "trained_on": "; ".join(one.title for one in datasets)
        + f": {trained.clips} patients or clips",
        "training_command": (
            f"echonode train echonet --seed {trial.seed} "
            f"--epochs {trial.epochs or protocol.epochs}{given} --dataset DIR"
        ),
    }
    card = CARD if protocol.own_frame else PAPER_CARD
    return pack_with_evidence(out, manifest, trained.network, dataset=datasets, card=card)


def outputs(protocol: Protocol, targets: Targets, evidence: Evidence) -> list[dict[str, Any]]:
    """The manifest's outputs, without figures."""
    told = []
    for output in protocol.told:
        task, head = TASKS[output.name], protocol.heads[output.head]
        told.append(
            {
                "name": output.name,
                "kind": task.kind,
                "unit": task.unit,
                "head": output.head,
                "link": head.link,
                "join": output.join,
                "scale": float(targets.spread[output.head]),
                "offset": float(targets.mean[output.head]),
                "pixel_power": protocol.power_of[output.name],
                "needs_motion": output.join is not Join.MEAN,
                "threshold": 0.5 if head.score else None,
                "evidence": evidence,
                "tested_on": "nothing yet",
            }
        )
    return told


# -- parts -----------------------------------------------------------------------------------------


def _protocol(trial: Trial) -> Protocol:
    """The protocol of a trial's settings."""
    given = {**RECIPE.knobs, **trial.settings}
    unknown = set(given) - set(RECIPE.knobs)
    if unknown:
        raise RecipeError(
            f"no setting {', '.join(sorted(unknown))}; there are {', '.join(RECIPE.knobs)}"
        )
    if given["protocol"] not in ("frames", "paper"):
        raise RecipeError(f"protocol={given['protocol']}: there are frames and paper")
    protocol = FRAMES if given["protocol"] == "frames" else paper(str(given["task"]))
    changes: dict[str, Any] = {
        name: float(given[name]) for name in ("width", "within", "maps") if given[name] is not None
    }
    if given["side"] is not None:
        side = int(given["side"])
        changes["spec"] = protocol.spec.model_copy(update={"rows": side, "columns": side})
    if given["heads"] == "volume" and protocol.own_frame:
        changes["heads"] = protocol.heads[:1]
        changes["told"] = tuple(one for one in protocol.told if one.head == 0)
    return replace(protocol, **changes)


def network_settings(protocol: Protocol) -> dict[str, Any]:
    """What the network is built with."""
    return {"outputs": len(protocol.heads), "width": protocol.width}


def _taught(
    network: keras.Model, protocol: Protocol
) -> tuple[keras.Model, tuple[tuple[int, int], ...]]:
    """The network with what its inner layers learn beside the numbers, and their grids."""
    if not protocol.maps:
        return network, ()
    inner = [
        (network.get_layer(name).output, stride) for name, stride in ((EARLY, 8), (MIDDLE, 16))
    ]
    where = [layers.Conv2D(len(CLASSES), 1)(each) for each, _ in inner]
    grids = tuple((int(each.shape[1]), stride) for each, stride in inner)
    return keras.Model(network.inputs, [network.outputs[0], *where]), grids


def _targets(frames: Frames, protocol: Protocol, trial: Trial) -> Targets:
    """Of the first run with this folder, so that a training that goes on learns the same."""
    path = trial.work / "targets.json"
    if path.is_file():
        kept = json.loads(path.read_text())
        return Targets(mean=np.array(kept["mean"]), spread=np.array(kept["spread"]))
    targets = Targets.of(frames, protocol.heads)
    trial.work.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"mean": targets.mean.tolist(), "spread": targets.spread.tolist()}))
    return targets


def _frames(protocol: Protocol, datasets: Sequence[Dataset], split: str, trial: Trial) -> Frames:
    """The frames of a split, kept in the trial's folder."""
    cache = trial.settings.get("cache")
    key = {
        "format": _FRAMES_FORMAT,
        "side": protocol.spec.rows,
        "split": split,
        "data": [one.fingerprint for one in datasets],
        "heads": [head.name for head in protocol.heads],
        "protocol": protocol.name,
    }
    make = partial(_traced if protocol.own_frame else _labelled, protocol, datasets, split)
    folder = (Path(cache) if cache else trial.work) / f"frames-{split}"
    frames = stored(folder, key, make)
    if not frames.clips:
        raise RecipeError(f"{', '.join(one.title for one in datasets)}: no clip in split {split}")
    return frames


def _traced(protocol: Protocol, datasets: Sequence[Dataset], split: str) -> Any:
    for dataset in datasets:
        if not isinstance(dataset, CamusDataset):
            raise RecipeError(
                f"{dataset.name}: the protocol 'frames' needs tracings of both ends of a beat, "
                "as CAMUS has; --set protocol=paper takes clips with reported values"
            )
        truths = {case.patient: case.truths for case in dataset.cases(split)}
        for patient in dataset.patients(split):
            yield traced_clip(
                patient,
                protocol.spec,
                protocol.heads,
                protocol.told,
                truths[patient.name],
                made=split == "train",
            )


def _labelled(protocol: Protocol, datasets: Sequence[Dataset], split: str) -> Any:
    for dataset in datasets:
        cases = dataset.cases(split)
        if split == "held":
            cases = cases[: protocol.most_held]
        yield from labelled_clips(cases, protocol.spec, protocol.heads, protocol.told)


CARD = """\
# echonet 0.2.0: EchoNet's frame regressor

Inception-ResNet-v1 at a quarter of its width, from a random start: one 128 x 128 frame in, five
numbers out. After Ghorbani et al., npj Digital Medicine 3:10, 2020, whose network saw 2,546
patients for this view.

- **For** research on adult transthoracic A4C clips, and for the explanations: it shows where a
  network looks when nothing was measured. Not for diagnosis. Where it and the tracing disagree,
  the tracing has the better evidence.
- **How it reads a clip**: 20 frames, one every 100 ms. For each it says the logarithm of the left
  ventricle's volume *in that frame*. EDV is the mean of the highest tenth, ESV of the lowest
  tenth, EF = 100 (1 - ESV / EDV). Left-atrial area and volume are the highest tenth; hypertrophy
  is the mean of a score.
- **How it differs from the paper**, and why: the paper labels every frame with its clip's EF. One
  frame does not hold a fraction of two volumes; with 2,546 patients and 68 frames of each the
  paper's network reached R2 0.50 all the same, with 351 patients a network trained so says
  everybody's mean (version 0.1.0: R2 0.09). What a frame does hold is its own volume, and the
  errors of two frames of one heart are alike, so that their ratio is better than either. Further:
  width, side, five heads of one network, inner layers taught where the chambers are, mirrored,
  scaled and restyled frames, frames warped out of the two real ones, sizes in network pixels.
- **Trained on** 351 patients of CAMUS (one hospital, one maker, two frames each). **Tested on** 50
  further patients: `evaluation.md`.
- **Hypertrophy** is a sign on the tracing (a wall of 14 mm or more at end diastole), no diagnosis.
- **Scale**: volumes and areas are given only where the clip's pixel spacing can be trusted; the
  ejection fraction needs none.
- **Intervals and thresholds** are those of 48 training patients that no weight saw.
- **Licence**: CC BY-NC-SA 4.0, research only (`LICENSE`).
"""

PAPER_CARD = """\
# echonet: one task by the paper's protocol

Inception-ResNet-v1 as Ghorbani et al. 2020 trained it (npj Digital Medicine 3:10): one 299 x 299
frame in, one number out, each frame labelled with its clip's value; a clip's value is the mean
over its frames. Trained on your own data with `echonode train echonet --set protocol=paper`: say
here on whom, and for whom it is meant. Research use only, not for diagnosis.
"""

RECIPE = Recipe(
    name="echonet",
    title="EchoNet: numbers from frames",
    wants="A4C clips with reported values; the protocol 'frames' wants CAMUS, with its tracings",
    fit=fit,
    pack=pack,
    grid=paper_grid(),
    knobs={
        "protocol": "frames",  # or "paper"
        "task": "ef",  # of the protocol "paper"
        "heads": "all",  # or "volume"; of the protocol "frames"
        "side": None,
        "width": None,
        "within": None,
        "maps": None,
        "cache": None,  # a folder for frames that several trials share
    },
    score="mean over outputs of the held-out error over that of saying the mean",
)
