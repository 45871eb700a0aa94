"""The packs of this process, and what it is asked to do with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from models.explain.panels import PictureSettings
from models.packs import Pack, PackError, load_pack
from node.analysis import clips
from node.analysis.cores import share_cores
from node.analysis.model import ClipView, RecordingAnalysis, Wanted
from storage.files import local

_AS_DRAWN = PictureSettings()


@dataclass(frozen=True, kw_only=True)
class Packs:
    """The readers of this process."""

    clips: clips.ClipPacks

    @classmethod
    def read(cls, packs: Iterable[Pack]) -> Self:
        """The readers of packs."""
        return cls(clips=clips.ClipPacks.read(packs))

    def narrowed(self, only: Collection[str] | None) -> Packs:
        """These without the packs for measurements that are not named."""
        if only is None:
            return self
        return Packs(clips=self.clips.narrowed(only))


_packs: Packs | None = None


def load_packs(
    folders: Sequence[str | Path], workers: int = 1, prepared: Path | None = None
) -> None:
    """Load packs into this process and run each once, so that the first clip waits for nothing.

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
    explain: bool = True,
    allow_simulated: bool = False,
    drawn: PictureSettings = _AS_DRAWN,
    only: Collection[str] | None = None,
) -> RecordingAnalysis:
    """Run every tracing and regression pack on the clip in a file.

    Parameters
    ----------
    source
        See :func:`storage.files.local`.
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
        return clips.analysis_of(path, packs.clips, wanted)


def _loaded() -> Packs:
    if _packs is None:
        raise PackError("no packs are loaded in this process: call load_packs first")
    return _packs
