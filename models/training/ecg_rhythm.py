r"""Train the ``ecg-rhythm`` pack: six findings of a 12-lead ECG, from simulated recordings.

    echonode train ecg-rhythm --dataset simulated-ecg:records=6000,seed=11

Ribeiro et al. 2020 (Nature Communications 11:1760): 4096 samples of 12 leads at 400 Hz, in mV,
padded with zeros, into a residual network with six scores. Theirs learned from 2.3 million
recordings of patients. These are to be had nowhere, so this one learns from
:mod:`models.ecg.simulator` alone, at half the filters; real recordings are kept for the test, and
nothing is chosen by them. The wander below half a hertz is taken away first: what is left differs
less between carts, and between a cart and a simulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.packs import Pack, WaveformInput
from models.training import ecg_training
from models.training.ecg_signals import RHYTHM
from models.training.ecg_training import KNOBS, EcgProtocol, protocol_of
from models.training.recipe import Recipe, Trial, paper_grid

OUTPUTS = (
    "first_degree_av_block",
    "rbbb",
    "lbbb",
    "sinus_bradycardia",
    "atrial_fibrillation",
    "sinus_tachycardia",
)
"""In the order of Ribeiro's network."""

CITATION = (
    "A. H. Ribeiro, M. H. Ribeiro, G. M. M. Paixao, et al., Automatic diagnosis of the 12-lead ECG "
    "using a deep neural network, Nature Communications 11:1760, 2020, doi "
    "10.1038/s41467-020-15432-4"
)

PROTOCOL = EcgProtocol(
    network="ribeiro",
    settings={"outputs": len(OUTPUTS), "width": 0.5},
    spec=WaveformInput(samples=4096, rate_hz=400.0, highpass_hz=0.5),
    outputs=OUTPUTS,
    varied=RHYTHM,
    epochs=15,
)
"""What ships."""


def fit(datasets: Sequence[Any], trial: Trial) -> float:
    """Train; the mean over the scores of 2 - 2 AUC on held-out recordings."""
    return ecg_training.train(protocol_of(PROTOCOL, KNOBS, trial), datasets, trial).score


def pack(datasets: Sequence[Any], trial: Trial, out: Path) -> Pack:
    """The pack of a finished training, with its evidence."""
    from models.training.ecg_evidence import EcgPacking, pack_ecg  # evaluation draws

    packing = EcgPacking(
        name="ecg-rhythm",
        version="0.1.0",
        title="Six findings of a 12-lead ECG, Ribeiro's network",
        citations=(CITATION,),
        card=CARD,
    )
    return pack_ecg(packing, protocol_of(PROTOCOL, KNOBS, trial), datasets, trial, out)


CARD = """\
# ecg-rhythm 0.1.0: six findings of a 12-lead ECG

**This network learned from simulated ECGs alone.** How it does on patients was counted on a few
dozen real recordings, each told by name in `evaluation.md`; no more follows from them than that.
Research use only, not for diagnosis.

- **Outputs**: scores (0 to 1) for first-degree AV block, right and left bundle branch block, sinus
  bradycardia, atrial fibrillation and sinus tachycardia. They do not exclude each other, and all
  other findings are not looked for: six low scores are no normal ECG.
- **Network**: Ribeiro's (Ribeiro et al., Nature Communications 11:1760, 2020) at half its filters,
  1.6 of 6.4 million weights: 4096 samples of 12 leads at 400 Hz, in mV, padded with zeros. The
  paper's network saw 2.3 million recordings; this one a few thousand simulated ones.
- **How it reads**: wander below 0.5 Hz is taken away; of a recording longer than 10.24 s the middle
  is read. Under five seconds, or with more than one lead that shows nothing, it says nothing; nor
  of bundle branches where V1 cannot be trusted, nor where limb leads do not fit together.
- **Trained on** `models.ecg.simulator`, which was told what these findings look like. It knows no
  pacemakers, no ventricular tachycardia, no children.
- **Tested on** further simulated recordings, and on real ones that no weight, threshold or length
  of training came from. The simulator's own voltages and shapes were set beside real recordings,
  these among them, so they are not wholly unseen. None has a left bundle branch block.
- **Thresholds**: greatest F1 on simulated recordings that no weight saw. Sinus bradycardia and
  tachycardia are 60 and 100 a minute there; who labelled the real ones may have counted otherwise.
  They stand in the evaluation alone: tested on so few, a score gives no verdict in a report.
- **Licence**: free; no patient's recording is in the weights (`LICENSE`).
"""

RECIPE = Recipe(
    name="ecg-rhythm",
    title="Six findings of a 12-lead ECG",
    wants="ECGs with findings, as in simulated-ecg:records=6000,seed=11",
    fit=fit,
    pack=pack,
    grid=paper_grid(),
    knobs=KNOBS,
    of_ecgs=True,
    score="mean over the scores of 2 - 2 AUC on held-out recordings",
)
