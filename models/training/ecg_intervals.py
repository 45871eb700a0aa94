r"""Train ``ecg-intervals`` and ``ecg-intervals-median``: what an ECG measures, from simulated ones.

    echonode train ecg-intervals --dataset simulated-ecg:records=6000,seed=11
    echonode train ecg-intervals-median --dataset simulated-ecg:records=3000,seed=11

Hicks et al. 2021 (Scientific Reports 11:10949): the ECGradCAM network learns PR, QRS, QT, heart
rate, the J point's, R wave's and T wave's amplitudes, and sex, each from ten seconds of rhythm or
from a median beat of 1.2 s, at 500 Hz. Here

- one network learns all of it at once, from the eight leads that are measured;
- the median one is the paper's in full; it is given no heart rate to learn, since one beat has
  none;
- the rhythm one sees 250 samples a second with kernels of 25, the same tenth of a second as the
  paper's 50 at 500: four times less to compute;
- both learn from :mod:`models.ecg.simulator` alone. Amplitudes are those of lead V5.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from models.ecg.recording import INDEPENDENT
from models.packs import Pack, Signal, WaveformInput
from models.training import ecg_training
from models.training.ecg_signals import BEAT, RHYTHM
from models.training.ecg_training import KNOBS, EcgProtocol, protocol_of
from models.training.recipe import Recipe, Trial, paper_grid

OF_A_BEAT = (
    "pr_interval",
    "qrs_duration",
    "qt_interval",
    "j_amplitude",
    "r_amplitude",
    "t_amplitude",
    "sex",
)
OUTPUTS = ("heart_rate", *OF_A_BEAT)

CITATION = (
    "S. A. Hicks, J. L. Isaksen, V. Thambawita, et al., Explaining deep neural networks for "
    "knowledge discovery in electrocardiogram analysis, Scientific Reports 11:10949, 2021, doi "
    "10.1038/s41598-021-90285-5"
)

PROTOCOLS = {
    "ecg-intervals": EcgProtocol(
        network="ecgradcam",
        settings={"outputs": len(OUTPUTS), "width": 1.0, "kernel": 25},
        spec=WaveformInput(samples=2500, rate_hz=250.0, leads=INDEPENDENT, highpass_hz=0.5),
        outputs=OUTPUTS,
        varied=RHYTHM,
        epochs=14,
    ),
    "ecg-intervals-median": EcgProtocol(
        network="ecgradcam",
        settings={"outputs": len(OF_A_BEAT), "width": 1.0},
        spec=WaveformInput(samples=600, rate_hz=500.0, leads=INDEPENDENT, signal=Signal.MEDIAN),
        outputs=OF_A_BEAT,
        varied=BEAT,
        epochs=24,
    ),
}
"""What ships, by the name of the pack."""

_TITLES = {
    "ecg-intervals": "Intervals, amplitudes, rate and sex of a 12-lead ECG, ECGradCAM's network",
    "ecg-intervals-median": "Intervals, amplitudes and sex of a median beat, ECGradCAM's network",
}


def fit(name: str, datasets: Sequence[Any], trial: Trial) -> float:
    """Train; the mean over the outputs of the held-out error over that of saying the mean."""
    return ecg_training.train(protocol_of(PROTOCOLS[name], KNOBS, trial), datasets, trial).score


def pack(name: str, datasets: Sequence[Any], trial: Trial, out: Path) -> Pack:
    """The pack of a finished training, with its evidence."""
    from models.training.ecg_evidence import EcgPacking, pack_ecg  # evaluation draws

    packing = EcgPacking(
        name=name,
        version="0.1.0",
        title=_TITLES[name],
        citations=(CITATION,),
        card=CARDS[name],
    )
    return pack_ecg(packing, protocol_of(PROTOCOLS[name], KNOBS, trial), datasets, trial, out)


_LEARNED = """\
**This network learned from simulated ECGs alone, and was hardly tested on patients**: sex on a few
dozen real recordings, the intervals on the one that a cart measured. It gives a number for whatever
it is shown. Research use only, not for diagnosis.
"""

_LIMITS = """\
- **PR** means nothing in atrial fibrillation or without P waves; where the wave detector finds none
  it is refused, whatever the network says. **Amplitudes** are those of lead V5.
- **Sex** is what the paper's network read from an ECG; here it is what the simulator was told of
  men's and women's. Demographic: never reported unless asked for by name.
- **Trained on** `models.ecg.simulator`, whose truths are exact; a cart, or a cardiologist with
  callipers, draws the ends of waves elsewhere.
- **Tested on** further simulated recordings: `evaluation.md`. The simulator's voltages and shapes
  were set beside real recordings, those of the report among them.
- **Intervals** beside a value are those of simulated recordings that no weight saw.
- **Licence**: free; no patient's recording is in the weights (`LICENSE`).
"""

_RHYTHM_CARD = f"""\
# ecg-intervals 0.1.0: what a 12-lead ECG measures

{_LEARNED}
- **Outputs**: heart rate; PR, QRS and QT; amplitudes of J point, R and T; a score for male sex.
- **Network**: ECGradCAM's (Hicks et al., Scientific Reports 11:10949, 2021): 10 s of the eight
  leads that are measured, at 250 Hz with kernels of 25 samples where the paper has 500 Hz and 50,
  the same tenth of a second; one network for all outputs.
{_LIMITS}"""

_MEDIAN_CARD = f"""\
# ecg-intervals-median 0.1.0: what a median beat measures

{_LEARNED}
- **Outputs**: PR, QRS and QT; amplitudes of J point, R and T; a score for male sex. No heart rate:
  one beat has none.
- **Network**: ECGradCAM's (Hicks et al., Scientific Reports 11:10949, 2021), all of it: 1.65
  million weights, a median beat of 1.2 s of the eight leads that are measured at 500 Hz; one
  network for all outputs. The cart's median beat is read where it sent one, otherwise echonode
  makes one of the beats that look alike.
{_LIMITS}"""

CARDS = {"ecg-intervals": _RHYTHM_CARD, "ecg-intervals-median": _MEDIAN_CARD}


def _recipe(name: str) -> Recipe:
    return Recipe(
        name=name,
        title=_TITLES[name],
        wants="ECGs with intervals and amplitudes, as in simulated-ecg:records=6000,seed=11",
        fit=partial(fit, name),
        pack=partial(pack, name),
        grid=paper_grid(),
        knobs=KNOBS,
        of_ecgs=True,
        score="mean over outputs of the held-out error over that of saying the mean",
    )


RHYTHM_RECIPE, MEDIAN_RECIPE = _recipe("ecg-intervals"), _recipe("ecg-intervals-median")
