r"""Train the ``echonet-simulated`` pack: what no patients here can teach, from simulated clips.

    echonode train echonet-simulated \
        --dataset simulated:clips=4000,frames=2,frame_time_ms=200,size=240x320,seed=11,lead=0.5

Ghorbani et al. 2020 (npj Digital Medicine 3:10) also predict leads, severe dilation of the left
atrium, age, sex, weight, height and the right atrium's length. No labels of patients can be had
for these, so one small network learns them from clips of :mod:`models.simulator` alone. It is for
demonstration: of outputs, reports and explanations. Its figures are those of simulated clips and
say nothing of patients; the simulator was told what the paper found and the network finds it again.

Each frame is labelled with its clip's value, as in the paper; a clip's value is the mean over its
frames. Frames are 128 x 128, turned a little and never scaled, since chambers' sizes and the depth
at which the heart lies are what most of these outputs are read from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.data.dataset import Dataset
from models.data.simulated import SimulatedDataset
from models.finding import Evidence
from models.packs import InputSpec, Link, Pack, PackKind
from models.training import echonet
from models.training.augment import Geometry
from models.training.echonet_frames import Head, Serving, Told
from models.training.recipe import Recipe, RecipeError, Trial, paper_grid

OUTPUTS = ("lead", "la_dilation", "ra_length", "age", "sex", "weight", "height")

SIMULATED = echonet.Protocol(
    name="simulated",
    heads=(
        Head(name="lead", score=True, weight=2.0),
        Head(name="la_dilation", score=True, weight=2.0),
        Head(name="ra_length", link=Link.LOG, power=1),
        Head(name="age", weight=0.5),
        Head(name="sex", score=True, weight=0.5),
        Head(name="weight", weight=0.5),
        Head(name="height", weight=0.5),
    ),
    told=tuple(Told(name=name, head=place) for place, name in enumerate(OUTPUTS)),
    spec=InputSpec(rows=128, columns=128, mean=0.2, std=0.2, frames=20, interval_ms=100.0),
    width=0.2,
    serving=Serving(
        a_clip=2,
        geometry=Geometry(
            rotation_degrees=10.0, smallest=1.0, largest=1.0, stretch=0.0, shift=0.03, mirror=0.0
        ),
        restyled=0.2,
    ),
    epochs=12,
    rate=2e-3,
    weight_decay=1e-2,
    maps=1.0,
    most_held=150,
)
"""One network for all of it."""

_DATASET = "simulated:clips=4000,frames=2,frame_time_ms=200,size=240x320,seed=11,lead=0.5"
_TEST: Mapping[str, Any] = {"clips": 200, "frames": 10, "frame_time_ms": 100.0}


def fit(datasets: Sequence[Dataset], trial: Trial) -> float:
    """Train; the mean over the outputs of the held-out error over that of saying the mean."""
    return echonet.train(SIMULATED, _simulated(datasets), trial).score


def pack(datasets: Sequence[Dataset], trial: Trial, out: Path) -> Pack:
    """The pack of a finished training; tested on clips of the usual length."""
    from models.training.packing import pack_with_evidence

    given = _simulated(datasets)
    trained = echonet.train(SIMULATED, given, trial)
    tests = [replace(one, options=replace(one.options, **_TEST)) for one in given]
    manifest = {
        "name": "echonet-simulated",
        "version": "0.2.0",
        "kind": PackKind.REGRESSION,
        "title": "EchoNet's other outputs, from simulated clips alone",
        "network": {
            "name": "inception_resnet_v1",
            "settings": echonet.network_settings(SIMULATED),
        },
        "input": SIMULATED.spec.model_dump(),
        "outputs": echonet.outputs(SIMULATED, trained.targets, Evidence.SIMULATED),
        "citations": (echonet.PAPER_CITATION,),
        "trained_on": f"{trained.clips} simulated A4C clips and no patient: "
        + "; ".join(one.title for one in given),
        "training_command": (
            f"echonode train echonet-simulated --seed {trial.seed} --dataset {_DATASET}"
        ),
    }
    return pack_with_evidence(out, manifest, trained.network, dataset=tests, card=CARD)


def _simulated(datasets: Sequence[Dataset]) -> tuple[SimulatedDataset, ...]:
    """Those data sets, which must be simulated.

    Raises
    ------
    models.training.recipe.RecipeError
        If one is not.
    """
    for one in datasets:
        if not isinstance(one, SimulatedDataset):
            raise RecipeError(
                f"{one.name}: this pack is trained on simulated clips alone; for clips with "
                f"reported values use echonet with --set protocol=paper --set task=TASK"
            )
    return tuple(one for one in datasets if isinstance(one, SimulatedDataset))


CARD = """\
# echonet-simulated 0.2.0: EchoNet's other outputs, from simulated clips alone

**This network has never seen a patient, and nothing that it says of one means anything.** It is
here so that outputs, reports and explanations for which there are no labelled patients can be
tried: the ones of Ghorbani et al., npj Digital Medicine 3:10, 2020, that CAMUS cannot label.

- **Outputs**: pacemaker or defibrillator lead; severe left-atrial dilation; right-atrial length;
  age, sex, weight and height. The last four are demographic estimates and are never reported
  unless asked for by name. All of them stay out of reports unless an operator switches outputs of
  simulated evidence on, and then every line says so.
- **Network**: Inception-ResNet-v1 at a fifth of its width; one 128 x 128 frame in, seven numbers
  out; a clip's value is the mean over 20 frames, one every 100 ms.
- **Trained on** simulated A4C clips of echonode's own simulator, which was told how these things
  shape a picture: chamber size by sex and height, the chest wall by weight, calcium by age. That
  the network finds them says that the simulator draws them, and nothing of hearts.
- **Tested on** further simulated clips: `evaluation.md`. A simulated clip is a patient of its own.
- **Intervals and thresholds** are those of simulated clips that no weight saw.
- **Licence**: free; no patient's picture is in it.
"""

RECIPE = Recipe(
    name="echonet-simulated",
    title="EchoNet's other outputs, from simulated clips alone",
    wants=f"simulated clips, as in {_DATASET}",
    fit=fit,
    pack=pack,
    grid=paper_grid(),
    knobs={"cache": None},  # a folder for frames that several trials share
    score="mean over outputs of the held-out error over that of saying the mean",
)
