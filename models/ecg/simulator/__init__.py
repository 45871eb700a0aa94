"""12-lead ECGs of known rhythm, intervals and amplitudes.

:func:`simulate_ecg` makes one, :func:`draw_wanted` draws what one of many shall be,
:func:`generate_inputs` makes many as a network takes them, and
:func:`models.ecg.simulator.dicom.to_dicom` makes a DICOM object of one.

- :mod:`~models.ecg.simulator.wanted`: what is asked for
- :mod:`~models.ecg.simulator.leads`: from a vector to leads, from electrodes to leads
- :mod:`~models.ecg.simulator.heart`: the waves of one heart
- :mod:`~models.ecg.simulator.rhythm`: when it beats
- :mod:`~models.ecg.simulator.cart`: noise, filters, converter
- :mod:`~models.ecg.simulator.simulate`: all of it together, and what is true of it

What is trained on them alone must say so: they vary widely, and no patient is in them.
"""

from models.ecg.simulator.batches import OUTPUTS, generate_inputs
from models.ecg.simulator.simulate import SimulatedEcg, simulate_ecg
from models.ecg.simulator.wanted import Conduction, EcgWanted, Rhythm, draw_wanted

__all__ = [
    "OUTPUTS",
    "Conduction",
    "EcgWanted",
    "Rhythm",
    "SimulatedEcg",
    "draw_wanted",
    "generate_inputs",
    "simulate_ecg",
]
