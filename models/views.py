"""The views: which standard picture of the heart a clip shows, and who says so.

The fifteen views are those of Madani et al. 2018 (npj Digital Medicine 1:6); "other" is for what
is none of them: blank, phantom, non-cardiac, a text page.

:class:`ViewReader` names a clip's view by a pack: ten frames spread over the clip, the mean of
their calibrated probabilities, the most probable view. Below the pack's threshold a label is not
certain. What the header says of the mode goes before the picture: a Doppler or M-mode object is
that, and an object that is declared two-dimensional is not. A label under colour Doppler is never
certain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.clip import Clip, Mode
from models.packs import Pack, PackError, PackKind
from models.packs.prepared import compiled
from models.preprocess import VERSION, fit_frames


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
    """What view a clip shows. ``score`` is 0 to 1; not ``certain`` means: do not rely on it.

    ``reason`` says in words why a call is not the network's plain answer, or not certain.
    """

    view: View
    score: float
    certain: bool
    reason: str = ""


class ViewReader:
    """Names the view of clips by a pack of kind "view".

    The network is built and compiled when the first clip needs it; that imports TensorFlow.
    """

    def __init__(self, pack: Pack) -> None:
        manifest = pack.manifest
        if manifest.kind is not PackKind.VIEW:
            raise PackError(
                f"pack {pack.folder}: kind is {manifest.kind.value!r}, and a view reader needs "
                f"{PackKind.VIEW.value!r}"
            )
        if manifest.preprocessing != VERSION:
            raise PackError(
                f"pack {pack.folder}: made for preprocessing version {manifest.preprocessing}, "
                f"and this echonode has version {VERSION}; use the matching release of the pack"
            )
        try:
            self._classes = tuple(View(name) for name in manifest.classes)
        except ValueError as error:
            raise PackError(f"pack {pack.folder}: manifest.json, classes: {error}") from error
        if not self._classes:
            raise PackError(f"pack {pack.folder}: manifest.json, classes: a view pack needs them")
        self.pack = pack

    def read(self, clip: Clip) -> ViewCall:
        """The clip's view.

        Raises
        ------
        ClipError
            If a frame cannot be decoded.
        """
        if clip.mode in _BY_HEADER:
            view = _BY_HEADER[clip.mode]
            reason = "the object says that it shows " + _WORDS[view]
            return ViewCall(view=view, score=1.0, certain=True, reason=reason)
        if not clip.sector.mask.any():
            return ViewCall(
                view=View.OTHER, score=1.0, certain=True, reason="no ultrasound picture is seen"
            )
        chances = self.chances(clip)
        best = int(chances.argmax())
        view, score = self._classes[best], float(chances[best])
        limit = self.pack.manifest.certain_from or 0.0
        reason = ""
        if score < limit:
            reason = f"the score is below {limit:.2f}"
        elif clip.panels > 1:
            # Only the largest picture was looked at; the object as a whole shows more.
            reason = f"{clip.panels} pictures stand side by side"
        elif clip.mode is Mode.COLOUR:
            # Flow hides tissue, and no real colour clip of a known view was there to test on.
            reason = "colour Doppler covers part of the picture"
        return ViewCall(view=view, score=score, certain=not reason, reason=reason)

    def chances(self, clip: Clip) -> NDArray[np.float64]:
        """The probability of each of the pack's classes, in their order; they sum to 1."""
        each = self.frame_chances(clip)
        mean = np.asarray(each.mean(axis=0), np.float64)
        if clip.mode in (Mode.TWO_D, Mode.COLOUR):
            still = np.array([view in _BY_HEADER.values() for view in self._classes])
            mean = np.where(still, 0.0, mean)
        return np.asarray(mean / max(float(mean.sum()), 1e-12))

    def frame_chances(self, clip: Clip) -> NDArray[np.float64]:
        """The calibrated probabilities (n, classes) of up to ten frames spread over the clip."""
        wanted = self.pack.manifest.frames.frames or FRAMES
        spread = np.linspace(0, clip.frame_count - 1, min(wanted, clip.frame_count))
        frames = clip.frames([int(index) for index in np.rint(spread)])
        inputs, _ = fit_frames(frames, self.pack.manifest.frames)
        return softmax(self._compiled(inputs), temperature=self.pack.manifest.temperature)

    @cached_property
    def _compiled(self) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        import tensorflow as tf

        spec = self.pack.manifest.frames
        shape = (None, spec.rows, spec.columns, 1)
        run = compiled(self.pack.prepared, "forward", lambda: self.pack.settled, shape)
        return lambda batch: np.asarray(run(tf.constant(batch)).numpy(), np.float32)


FRAMES = 10
"""Frames that vote on a clip's label, as in Madani et al. 2018."""

_BY_HEADER = {Mode.PW: View.PW, Mode.CW: View.CW, Mode.M_MODE: View.M_MODE}
_WORDS = {
    View.PW: "pulsed-wave Doppler",
    View.CW: "continuous-wave Doppler",
    View.M_MODE: "M-mode",
}


def softmax(logits: NDArray[np.floating], *, temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities of logits (n, classes) divided by the temperature."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled -= scaled.max(axis=-1, keepdims=True)
    powers = np.exp(scaled)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
