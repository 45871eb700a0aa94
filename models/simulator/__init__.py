"""Echo clips of known anatomy: every view, its truth, and the maker's screen around it.

:func:`simulate` makes a clip, :func:`models.simulator.dicom.to_dicom` makes a DICOM object of it.
The pictures look like a phantom's, not like a patient's: what is trained on them alone must say so.
"""

from models.simulator.anatomy import Structure
from models.simulator.clip import VISIBLE, Region, RegionFormat, RegionType, SimulatedClip, Truth
from models.simulator.heart import Lead
from models.simulator.person import Person, Sex, random_person
from models.simulator.simulate import simulate

__all__ = [
    "VISIBLE",
    "Lead",
    "Person",
    "Region",
    "RegionFormat",
    "RegionType",
    "Sex",
    "SimulatedClip",
    "Structure",
    "Truth",
    "random_person",
    "simulate",
]
