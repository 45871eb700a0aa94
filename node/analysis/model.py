"""What comes of a recording in a worker: frozen, picklable and small records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from models import views
from models.clip import Mode
from models.explain.panels import EncodedPicture, PictureSettings
from models.finding import Finding, PackRef, Refusal
from models.packs import Signal
from node.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What is wanted of an analysis.

    ``explain``: draw the picture too, which takes the greater part of the time; it shows outputs
    that have only seen the simulator where ``allow_simulated``. ``drawn`` is how large it may be.
    """

    explain: bool = True
    allow_simulated: bool = False
    drawn: PictureSettings = field(default_factory=PictureSettings)


@dataclass(frozen=True, kw_only=True)
class ClipView:
    """What a clip shows, or why nobody can say. One of ``view`` and ``refused`` is None."""

    view: views.ViewCall | None
    refused: str | None
    mode: Mode = Mode.UNKNOWN
    frame_count: int = 0
    pack: PackRef | None = None
    reading_s: Mapping[str, float] = field(default_factory=dict, compare=False)  #: by pack's name


@dataclass(frozen=True, kw_only=True)
class RecordingAnalysis:
    """All that the packs say of a recording, whatever their evidence; see
    :func:`node.evidence.reportable`.

    ``refused`` is why the recording as a whole was not analysed; then there is nothing else.
    ``picture`` shows findings that may be reported and no others; it is None where there are
    none, or where nobody asked for it. ``packs_run`` are the packs that looked at it.
    """

    findings: tuple[Finding, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    refused: str | None = None
    picture: EncodedPicture | None = None
    packs_run: tuple[PackRef, ...] = ()
    reading_s: Mapping[str, float] = field(default_factory=dict, compare=False)  #: by pack's name


@dataclass(frozen=True, kw_only=True, slots=True)
class EcgRead:
    """Which stretch of an ECG a pack read.

    ``group`` is the multiplex group of the object, from 1 on, and ``channels`` are those of the
    leads that the network saw, from 1 on (PS3.3 C.10.9). A stretch that stands in no object, such
    as a median beat that was made here, has group 0 and no channels. ``begin_ms`` and ``end_ms``
    count from the group's first sample.
    """

    pack: PackRef
    signal: Signal
    group: int
    channels: tuple[int, ...]
    begin_ms: float
    end_ms: float


@dataclass(frozen=True, kw_only=True)
class EcgAnalysis(RecordingAnalysis):
    """All that the packs say of an ECG. ``picture`` has a page for each output of ``pages``.

    ``troubles`` are what cannot be trusted in the recording, in words, and ``reads`` what of it
    each pack read.
    """

    troubles: tuple[str, ...] = ()
    reads: tuple[EcgRead, ...] = ()
    pages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ClipAnalysis(RecordingAnalysis):
    """All that the packs say of a clip. ``picture`` is the clip, with one frame for each of its."""


def picture_settings(settings: Settings) -> PictureSettings:
    """How large the site wants its pictures."""
    return PictureSettings(
        quality=settings.capture.jpeg_quality,
        frames_per_second=settings.capture.frames_per_second,
    )
