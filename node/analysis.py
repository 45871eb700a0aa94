"""What a worker runs: the file of a clip in, its view or its findings and picture out.

A worker process calls :func:`load_packs` once and then :func:`name_view` and :func:`analyse` as
often as it is asked to. Both depend on the file and the packs alone, so that a clip whose worker
died simply runs again. What they return is frozen, picklable and small: pictures come as JPEG
frames. The node imports this module without TensorFlow; only the calls above need it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from models import views
from models.clip import Clip, ClipError, Mode, read_clip
from models.explain import panels, smoothgrad
from models.explain.sector import outside_shares, sector_in_network
from models.explain.target import BATCH, Explained, explained
from models.finding import MOST_OUTSIDE, Finding, PackRef, Refusal
from models.packs import OutputSpec, Pack, PackError, PackKind, load_pack
from models.preprocess import fit_frames
from models.readers import (
    Reading,
    RegressionReader,
    RegressionReading,
    TracingReader,
    TracingReading,
)
from models.tasks import TASKS
from models.threads import MOST_LANES, use_lanes
from node.evidence import cautions, may_speak, reportable
from node.settings import Settings
from storage.files import local

MOST_MAPS = 6
"""A picture explains no more outputs than this, the first ones in the packs' order."""

ReadingT = TypeVar("ReadingT", covariant=True)

# Noisy copies of one frame, a batch: for the share outside the sector, not for a map. A tracing is
# explained in one to five frames, and batches of ten would be half empty.
_TRACING_SAMPLES = 4

NO_REWRITING = (
    "arithmetic_optimization",
    "common_subgraph_elimination",
    "constant_folding",
    "dependency_optimization",
    "implementation_selector",
    "layout_optimizer",
    "loop_optimization",
    "shape_optimization",
)
"""What TensorFlow leaves undone of rewriting a graph; otherwise it does all of these."""

_AS_DRAWN = panels.PictureSettings()

_WHY_NOT: Mapping[Mode, str] = {
    Mode.COLOUR: "colour Doppler covers the chambers; the models read plain two-dimensional clips",
    Mode.M_MODE: "an M-mode picture; the models read two-dimensional clips",
    Mode.PW: "a pulsed-wave Doppler picture; the models read two-dimensional clips",
    Mode.CW: "a continuous-wave Doppler picture; the models read two-dimensional clips",
}


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
class ClipAnalysis:
    """All that the packs say of a clip, whatever their evidence; see
    :func:`node.evidence.reportable`.

    ``refused`` is why the clip as a whole was not analysed; then there is nothing else.
    ``picture`` shows findings that may be reported and no others; it is None where there are
    none, or where nobody asked for it. ``packs_run`` are the packs that looked at the clip.
    """

    findings: tuple[Finding, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    refused: str | None = None
    picture: panels.EncodedPicture | None = None
    packs_run: tuple[PackRef, ...] = ()
    reading_s: Mapping[str, float] = field(default_factory=dict, compare=False)  #: by pack's name


def reason_to_skip(seen: ClipView) -> str | None:
    """Why a clip with a named view is not for the models; None where it is."""
    if seen.view is None:
        return "no view could be named"
    if seen.view.view is not views.View.A4C:
        return f"the models read apical four-chamber clips, not {seen.view.view.value}"
    if not seen.view.certain:
        return "it may be an apical four-chamber view, but the view is uncertain"
    if seen.frame_count == 1:
        return "a still; the models read moving clips, and stills often bear what was drawn on them"
    return _WHY_NOT.get(seen.mode)


def picture_settings(settings: Settings) -> panels.PictureSettings:
    """How large the site wants its pictures."""
    return panels.PictureSettings(
        quality=settings.capture.jpeg_quality,
        frames_per_second=settings.capture.frames_per_second,
    )


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
    _share_cores(workers)
    _packs = _Packs.read(loaded.values())
    _packs.warm()


def name_view(source: str) -> ClipView:
    """Name the view of the clip in a file; see :func:`storage.files.local` for ``source``."""
    with local(source) as path:
        return _name_view(path)


def _name_view(path: Path) -> ClipView:
    reader = _loaded().view
    try:
        clip = read_clip(path)
        if reader is None:
            return ClipView(
                view=None,
                refused="no pack that names views is installed; see 'echonode packs'",
                mode=clip.mode,
                frame_count=clip.frame_count,
            )
        took_s: dict[str, float] = {}
        with _timed(reader.pack, took_s):
            view = reader.read(clip)
        return ClipView(
            view=view,
            refused=None,
            mode=clip.mode,
            frame_count=clip.frame_count,
            pack=reader.pack.ref,
            reading_s=took_s,
        )
    except ClipError as error:
        return ClipView(view=None, refused=str(error))


def analyse(
    source: str,
    *,
    explain: bool = True,
    allow_simulated: bool = False,
    drawn: panels.PictureSettings = _AS_DRAWN,
    only: Collection[str] | None = None,
) -> ClipAnalysis:
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
    with local(source) as path:
        return _analyse(path, packs, explain, allow_simulated, drawn)


def _analyse(
    path: Path,
    packs: _Packs,
    explain: bool,
    allow_simulated: bool,
    drawn: panels.PictureSettings,
) -> ClipAnalysis:
    try:
        clip = read_clip(path)
        if clip.mode in _WHY_NOT:
            return ClipAnalysis(refused=_WHY_NOT[clip.mode])
        took_s: dict[str, float] = {}
        traced = tuple((reader, _read(reader, clip, took_s)) for reader in packs.tracings)
        regressed = tuple((reader, _read(reader, clip, took_s)) for reader in packs.regressions)
        readings = (*(reading for _, reading in traced), *(reading for _, reading in regressed))
        findings = tuple(finding for reading in readings for finding in reading.findings)
        picture = None
        if explain and reportable(findings, allow_simulated=allow_simulated)[0]:
            maps: list[panels.ShownMap] = []
            traced = tuple(
                (reader, _asked_of_tracing(clip, reader, reading, packs, allow_simulated))
                for reader, reading in traced
            )
            regressed = tuple(
                (reader, _asked(clip, reader, reading, packs, maps, allow_simulated))
                for reader, reading in regressed
            )
            readings = (*(reading for _, reading in traced), *(said for _, said in regressed))
            findings = tuple(finding for reading in readings for finding in reading.findings)
            picture = panels.encode(
                _draw(clip, traced, regressed, maps, allow_simulated, drawn), drawn
            )
    except ClipError as error:
        return ClipAnalysis(refused=str(error))
    return ClipAnalysis(
        findings=findings,
        refusals=tuple(refusal for reading in readings for refusal in reading.refusals),
        picture=picture,
        packs_run=tuple(reader.pack.ref for reader, _ in (*traced, *regressed)),
        reading_s=took_s,
    )


class _Reads(Protocol[ReadingT]):
    """A reader of one pack."""

    @property
    def pack(self) -> Pack: ...  # pragma: no cover

    def read(self, clip: Clip, /) -> ReadingT: ...  # pragma: no cover


def _read(reader: _Reads[ReadingT], clip: Clip, took_s: dict[str, float]) -> ReadingT:
    with _timed(reader.pack, took_s):
        return reader.read(clip)


@contextlib.contextmanager
def _timed(pack: Pack, took_s: dict[str, float]) -> Iterator[None]:
    began = time.monotonic()
    yield
    took_s[pack.manifest.name] = time.monotonic() - began


@dataclass(frozen=True, kw_only=True)
class _Packs:
    """The readers of this process."""

    view: views.ViewReader | None
    tracings: tuple[TracingReader, ...]
    regressions: tuple[RegressionReader, ...]
    _explained: dict[str, Explained] = field(default_factory=dict)

    def explained(self, pack: Pack) -> Explained:
        """A pack's network as what is explained of it: one object, so it is compiled once."""
        name = pack.manifest.name
        if name not in self._explained:
            self._explained[name] = explained(pack, settled=True)
        return self._explained[name]

    def narrowed(self, only: Collection[str] | None) -> _Packs:
        """These without the packs for measurements that are not named."""
        if only is None:
            return self
        return replace(  # what is explained stays one object, for all
            self,
            tracings=tuple(one for one in self.tracings if one.pack.manifest.name in only),
            regressions=tuple(one for one in self.regressions if one.pack.manifest.name in only),
        )

    @classmethod
    def read(cls, packs: Iterable[Pack]) -> _Packs:
        of_kind: dict[PackKind, list[Pack]] = {kind: [] for kind in PackKind}
        for pack in packs:
            of_kind[pack.manifest.kind].append(pack)
        return cls(
            view=views.ViewReader(of_kind[PackKind.VIEW][-1]) if of_kind[PackKind.VIEW] else None,
            tracings=tuple(map(TracingReader, of_kind[PackKind.TRACING])),
            regressions=tuple(map(RegressionReader, of_kind[PackKind.REGRESSION])),
        )

    def warm(self) -> None:
        """Build and compile every network by running it on a clip that shows only speckle."""
        clip = Clip.from_frames(_speckled_sector(), spacing_mm=0.5)
        if self.view is not None:
            self.view.read(clip)
        for tracer in self.tracings:
            tracer.read(clip)
            if tracer.spec.window == 1:
                numbers = self.explained(tracer.pack)
                asked = _explained_of_tracing(numbers, tracer.pack, allow_simulated=False)
                inputs, _ = fit_frames(clip.frames([0]), tracer.spec)
                if asked:
                    _smooth_tracing(numbers, inputs, asked, sector_in_network(clip, tracer.spec))
        for regressor in self.regressions:
            regressor.read(clip)
            outputs = _explained(regressor.pack, allow_simulated=False)
            if outputs:
                inputs, _, _ = regressor.inputs(clip)
                sector = sector_in_network(clip, regressor.spec)
                _smooth(self.explained(regressor.pack), inputs[:1], outputs, sector, samples=1)


_packs: _Packs | None = None


def _loaded() -> _Packs:
    if _packs is None:
        raise PackError("no packs are loaded in this process: call load_packs first")
    return _packs


def _share_cores(workers: int) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = max(1, (cores or 1) // max(1, workers))
    lanes = min(threads, MOST_LANES)
    use_lanes(lanes)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads // lanes))
    import tensorflow as tf

    # Where TensorFlow has already run in this process, its threads stay as they are.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads // lanes)
        tf.config.threading.set_inter_op_parallelism_threads(lanes)
    # Of rewriting the graph, joining convolution, bias and activation is what makes a clip quicker.
    # The rest takes longer on a gradient's graph of thousands of steps than it ever gives back.
    tf.config.optimizer.set_experimental_options(dict.fromkeys(NO_REWRITING, False))


def _speckled_sector() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Two frames of a fan of speckle: a still one would be taken for a page of the screen."""
    rows, columns = np.mgrid[0:120, -80:80]
    fan = (np.abs(columns) < rows * 0.6) & (np.hypot(rows, columns) < 118)
    speckle = np.random.default_rng(1).integers(40, 200, (2, *fan.shape), dtype=np.uint8)
    speckle[:, ~fan] = 0
    return speckle


def _spoken(pack: Pack, allow_simulated: bool) -> tuple[OutputSpec, ...]:
    """The outputs of a pack that may stand in a report."""
    return tuple(
        output
        for output in pack.manifest.outputs
        if may_speak(output.name, output.evidence, allow_simulated)
    )


def _explained(pack: Pack, *, allow_simulated: bool) -> tuple[int, ...]:
    """Which outputs of a regression a picture may explain, by their places in the manifest."""
    if pack.manifest.input.window > 1:
        return ()  # what moves such a network is no map over one frame
    names = [output.name for output in pack.manifest.outputs]
    spoken = [names.index(output.name) for output in _spoken(pack, allow_simulated)]
    return tuple(spoken[:MOST_MAPS])


def _explained_of_tracing(
    numbers: Explained, pack: Pack, *, allow_simulated: bool
) -> tuple[int, ...]:
    """Which numbers of a tracing are explained, by their places among its targets."""
    spoken = {output.name for output in _spoken(pack, allow_simulated)}
    return tuple(o for o, target in enumerate(numbers.targets) if target.name in spoken)


def _draw(
    clip: Clip,
    traced: Sequence[tuple[TracingReader, TracingReading]],
    regressed: Sequence[tuple[RegressionReader, RegressionReading]],
    maps: Sequence[panels.ShownMap],
    allow_simulated: bool,
    drawn: panels.PictureSettings,
) -> panels.Picture:
    """The picture of a clip, with what may be reported and nothing else."""
    said: list[tuple[Pack, Reading]] = [
        *((reader.pack, reading) for reader, reading in traced),
        *((reader.pack, reading) for reader, reading in regressed),
    ]
    findings = [finding for _, reading in said for finding in reading.findings]
    refusals = [
        refusal
        for pack, reading in said
        for refusal in reading.refusals
        if refusal.output in {output.name for output in _spoken(pack, allow_simulated)}
    ]
    shown = [item for item in traced if _spoken(item[0].pack, allow_simulated)]
    frames = range(min(clip.frame_count, panels.MOST_FRAMES))
    return panels.draw_clip(
        clip.frames(frames),
        panels.Shown(
            frame_times_ms=tuple(float(time) for time in clip.time_axis.times_ms[: len(frames)]),
            source_frames=tuple(frames),
            clip_frames=clip.frame_count,
            findings=reportable(findings, allow_simulated=allow_simulated)[0],
            refusals=tuple(refusals),
            cautions=tuple(_cautions(said, allow_simulated)),
            tracing=_tracing(*shown[0]) if shown else None,
            maps=tuple(maps[:MOST_MAPS]),
            method=f"SmoothGrad, {smoothgrad.SAMPLES} samples, "
            f"sigma {100 * smoothgrad.SIGMA:.0f} %",
        ),
        drawn,
    )


def _cautions(said: Sequence[tuple[Pack, Reading]], allow_simulated: bool) -> Iterator[str]:
    """What packs say a reader must know beside the values that they gave."""
    for pack, reading in said:
        spoken = {output.name for output in _spoken(pack, allow_simulated)}
        yield from cautions((one for one in reading.findings if one.output in spoken), (pack,))
        outside = [
            TASKS[finding.output].title for finding in reading.findings if finding.looked_outside
        ]
        if outside:
            yield (
                f"DO NOT RELY ON {', '.join(outside)} by {pack.manifest.name}: the network looked "
                f"outside the scanning sector (more than {100 * MOST_OUTSIDE:.0f} % of what moved "
                "the value)."
            )


def _tracing(reader: TracingReader, reading: TracingReading) -> panels.ShownTracing:
    return panels.ShownTracing(
        masks=reading.masks,
        frames=reading.frame_indices,
        classes=reader.pack.manifest.classes,
        ed_frames=reading.ed_frames,
        es_frames=reading.es_frames,
        volumes_ml=reading.volumes_ml,
    )


def _asked(
    clip: Clip,
    reader: RegressionReader,
    reading: RegressionReading,
    packs: _Packs,
    maps: list[panels.ShownMap],
    allow_simulated: bool,
) -> RegressionReading:
    """The reading with the share that each explained finding owes to pixels outside the sector.

    One map for each output that was given and may be reported goes into ``maps``, over the
    sector frame.
    """
    given = {finding.output: finding for finding in reading.findings}
    names = reader.output_names
    explained = _explained(reader.pack, allow_simulated=allow_simulated)
    outputs = [output for output in explained if names[output] in given]
    if not outputs:
        return reading
    inputs, fit, indices = reader.inputs(clip)
    places = {frame: place for place, frame in reversed(list(enumerate(indices)))}
    frames = tuple(sorted(places))  # a short clip may have given a frame more than once
    sector = sector_in_network(clip, reader.spec)
    # Of every output, whatever was given: the graph for another choice would take ten seconds.
    every = _smooth(
        packs.explained(reader.pack), inputs[[places[frame] for frame in frames]], explained, sector
    )
    found = every[[explained.index(output) for output in outputs]]
    asked = _with_shares(reading.findings, [names[output] for output in outputs], found, sector)
    given = {finding.output: finding for finding in asked}
    maps += [
        panels.ShownMap(finding=given[names[output]], maps=fit.map_to_source(each), frames=frames)
        for output, each in zip(outputs, found, strict=True)
    ]
    return replace(reading, findings=asked)


def _asked_of_tracing(
    clip: Clip, reader: TracingReader, reading: TracingReading, packs: _Packs, allow_simulated: bool
) -> TracingReading:
    """The same of a tracing, in the frame that tells most of each finding.

    No map is kept: a picture of a tracing shows the tracing.
    """
    if reader.spec.window > 1:
        return reading
    numbers = packs.explained(reader.pack)
    explained = _explained_of_tracing(numbers, reader.pack, allow_simulated=allow_simulated)
    spoken = [numbers.targets[output].name for output in explained]
    given = [finding for finding in reading.findings if finding.output in spoken and finding.frames]
    if not given:
        return reading
    frames = sorted({finding.frames[0] for finding in given})
    inputs, _ = fit_frames(clip.frames(frames), reader.spec)
    sector = sector_in_network(clip, reader.spec)
    names = [finding.output for finding in given]
    every = _smooth_tracing(numbers, inputs, explained, sector)
    maps = every[[spoken.index(name) for name in names]]
    return replace(reading, findings=_with_shares(reading.findings, names, maps, sector))


def _smooth(
    numbers: Explained,
    inputs: NDArray[np.float32],
    outputs: Sequence[int],
    sector: NDArray[np.bool_],
    samples: int = smoothgrad.SAMPLES,
    batch: int = BATCH,
) -> NDArray[np.float32]:
    """SmoothGrad of outputs, those that are the same number of the network once."""
    sources = [(numbers.targets[o].quantity, numbers.targets[o].place) for o in outputs]
    firsts = [outputs[sources.index(source)] for source in sources]
    unique = list(dict.fromkeys(firsts))
    maps = smoothgrad.smoothgrad(
        numbers, inputs, unique, sector=sector, samples=samples, batch=batch
    )
    return maps[[unique.index(first) for first in firsts]]


def _smooth_tracing(
    numbers: Explained,
    inputs: NDArray[np.float32],
    outputs: Sequence[int],
    sector: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """The same of a tracing, which takes few samples."""
    return _smooth(
        numbers, inputs, outputs, sector, samples=_TRACING_SAMPLES, batch=_TRACING_SAMPLES
    )


def _with_shares(
    findings: Sequence[Finding],
    names: Sequence[str],
    maps: NDArray[np.float32],
    sector: NDArray[np.bool_],
) -> tuple[Finding, ...]:
    # Two digits: a last bit that differs between machines makes no other finding.
    shares = dict(zip(names, outside_shares(maps, sector).round(2).tolist(), strict=True))
    return tuple(replace(finding, outside_share=shares.get(finding.output)) for finding in findings)
