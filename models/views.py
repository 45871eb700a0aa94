"""The views: which standard picture of the heart a clip shows.

The fifteen views are those of Madani et al. 2018 (npj Digital Medicine 1:6); "other" is for what
is none of them: blank, phantom, non-cardiac, a text page.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class View(StrEnum):
    """A view's label, as findings, reports and the command line print it."""

    PSLA = "psla"  #: parasternal long axis
    RV_INFLOW = "rvinflow"  #: right-ventricular inflow
    SAX_BASAL = "saxbasal"  #: short axis at the base
    SAX_MID = "saxmid"  #: short axis at papillary or mitral level
    A4C = "a4c"  #: apical four-chamber
    A5C = "a5c"  #: apical five-chamber
    A2C = "a2c"  #: apical two-chamber
    A3C = "a3c"  #: apical long axis
    SUB4C = "sub4c"  #: subcostal four-chamber
    IVC = "ivc"  #: subcostal inferior vena cava
    SUBAO = "subao"  #: subcostal or abdominal aorta
    SUPAO = "supao"  #: suprasternal aorta or arch
    PW = "pw"  #: pulsed-wave Doppler
    CW = "cw"  #: continuous-wave Doppler
    M_MODE = "mmode"  #: M-mode
    OTHER = "other"  #: none of these


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewCall:
    """What view a clip shows. ``score`` is 0 to 1; not ``certain`` means: do not rely on it."""

    view: View
    score: float
    certain: bool
