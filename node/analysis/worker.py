"""The packs of this process, and what it is asked to do with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from models.ecg.reading import is_ecg_file
from models.explain.panels import PictureSettings
from models.packs import Pack, PackError, load_pack
from node.analysis import clips, ecgs
from node.analysis.cores import share_cores
from node.analysis.model import ClipView, RecordingAnalysis, Wanted
from storage.files import local
from storage.states import RecordingKind

_AS_DRAWN = PictureSettings()


@dataclass(frozen=True, kw_only=True)
class Packs:
    """The readers of this process."""

    clips: clips.ClipPacks
    ecgs: ecgs.EcgPacks

    @classmethod
    def read(cls, packs: Iterable[Pack]) -> Self:
        """The readers of packs."""
        every = tuple(packs)
        return cls(clips=clips.ClipPacks.read(every), ecgs=ecgs.EcgPacks.read(every))

    def narrowed(self, only: Collection[str] | None) -> Packs:
        """These without the packs for measurements that are not named."""
        if only is None:
            return self
        return Packs(clips=self.clips.narrowed(only), ecgs=self.ecgs.narrowed(only))


_packs: Packs | None = None


def load_packs(
    folders: Sequence[str | Path], workers: int = 1, prepared: Path | None = None
) -> None:
    """Load packs into this process and run each once, so that the first clip waits for nothing.

    Packs that read ECGs are run at the first ECG: they take a moment then, and nothing where none
    ever comes.

    Parameters
    ----------
    folders
        Of packs. One that comes later replaces one of the same name, and of packs that name
        views the last one does.
    workers
        How many such processes share the machine: each takes its part of the cores.
    prepared
        Where networks are kept as they run, which spares most of the start.

    Raises
    ------
    PackError
        If a pack cannot be used; the message names it.
    """
    global _packs
    # Before TensorFlow is imported: a pack that cannot be used is told of at once.
    read = (load_pack(Path(folder), prepared) for folder in folders)
    loaded = {pack.manifest.name: pack for pack in read}
    share_cores(workers)
    _packs = Packs.read(loaded.values())
    _packs.clips.warm()


def name_view(source: str) -> ClipView:
    """Name the view of the clip in a file; see :func:`storage.files.local` for ``source``."""
    packs = _loaded()
    with local(source) as path:
        return clips.view_of(path, packs.clips)


def analyse(
    source: str,
    *,
    kind: RecordingKind | None = None,
    explain: bool = True,
    allow_simulated: bool = False,
    drawn: PictureSettings = _AS_DRAWN,
    only: Collection[str] | None = None,
) -> RecordingAnalysis:
    """Run every pack for such a recording on the one in a file.

    Parameters
    ----------
    source
        See :func:`storage.files.local`.
    kind
        What it is; None: what the file says.
    explain
        Draw the picture too: it takes the greater part of the time.
    allow_simulated
        The picture may show outputs that have only seen the simulator.
    drawn
        How large the picture may become.
    only
        Names of packs: no others run.
    """
    packs = _loaded().narrowed(only)
    wanted = Wanted(explain=explain, allow_simulated=allow_simulated, drawn=drawn)
    with local(source) as path:
        if kind is None:
            kind = RecordingKind.ECG if is_ecg_file(path) else RecordingKind.ULTRASOUND
        if kind is RecordingKind.ECG:
            return ecgs.analysis_of(path, packs.ecgs, wanted)
        return clips.analysis_of(path, packs.clips, wanted)


def _loaded() -> Packs:
    if _packs is None:
        raise PackError("no packs are loaded in this process: call load_packs first")
    return _packs
