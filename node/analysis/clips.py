"""A clip in a worker: its view or its findings and picture."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from models import views
from models.clip import Clip, ClipError, Mode, read_clip
from models.explain import panels, smoothgrad
from models.explain.sector import outside_shares, sector_in_network
from models.explain.target import BATCH, Explained, explained
from models.finding import MOST_OUTSIDE, Finding
from models.packs import Pack, PackKind
from models.preprocess import fit_frames
from models.readers import (
    Reading,
    RegressionReader,
    RegressionReading,
    TracingReader,
    TracingReading,
)
from models.tasks import TASKS
from node.analysis.model import ClipAnalysis, ClipView, Wanted
from node.analysis.shared import MOST_MAPS, speaking, timed
from node.evidence import cautions, reportable

ReadingT = TypeVar("ReadingT", covariant=True)

TRACING_SAMPLES = 4
"""Noisy copies of one frame, a batch: for the share outside the sector, not for a map. A tracing is
explained in one to five frames, and batches of ten would be half empty."""

_WHY_NOT: Mapping[Mode, str] = {
    Mode.COLOUR: "colour Doppler covers the chambers; the models read plain two-dimensional clips",
    Mode.M_MODE: "an M-mode picture; the models read two-dimensional clips",
    Mode.PW: "a pulsed-wave Doppler picture; the models read two-dimensional clips",
    Mode.CW: "a continuous-wave Doppler picture; the models read two-dimensional clips",
}


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


def view_of(path: Path, packs: ClipPacks) -> ClipView:
    """Name the view of the clip in a file."""
    reader = packs.view
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
        with timed(reader.pack, took_s):
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


def analysis_of(path: Path, packs: ClipPacks, wanted: Wanted) -> ClipAnalysis:
    """Run every tracing and regression pack on the clip in a file."""
    allow_simulated = wanted.allow_simulated
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
        if wanted.explain and reportable(findings, allow_simulated=allow_simulated)[0]:
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
                _draw(clip, traced, regressed, maps, allow_simulated, wanted.drawn),
                wanted.drawn,
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
    with timed(reader.pack, took_s):
        return reader.read(clip)


@dataclass(frozen=True, kw_only=True)
class ClipPacks:
    """The readers of clips of a process."""

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

    def narrowed(self, only: Collection[str] | None) -> ClipPacks:
        """These without the packs for measurements that are not named."""
        if only is None:
            return self
        return replace(  # what is explained stays one object, for all
            self,
            tracings=tuple(one for one in self.tracings if one.pack.manifest.name in only),
            regressions=tuple(one for one in self.regressions if one.pack.manifest.name in only),
        )

    @classmethod
    def read(cls, packs: Iterable[Pack]) -> Self:
        """The readers of those packs that read clips."""
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
                    smooth_tracing(numbers, inputs, asked, sector_in_network(clip, tracer.spec))
        for regressor in self.regressions:
            regressor.read(clip)
            outputs = _explained(regressor.pack, allow_simulated=False)
            if outputs:
                inputs, _, _ = regressor.inputs(clip)
                sector = sector_in_network(clip, regressor.spec)
                smooth(self.explained(regressor.pack), inputs[:1], outputs, sector, samples=1)


def _speckled_sector() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Two frames of a fan of speckle: a still one would be taken for a page of the screen."""
    rows, columns = np.mgrid[0:120, -80:80]
    fan = (np.abs(columns) < rows * 0.6) & (np.hypot(rows, columns) < 118)
    speckle = np.random.default_rng(1).integers(40, 200, (2, *fan.shape), dtype=np.uint8)
    speckle[:, ~fan] = 0
    return speckle


def _explained(pack: Pack, *, allow_simulated: bool) -> tuple[int, ...]:
    """Which outputs of a regression a picture may explain, by their places in the manifest."""
    if pack.manifest.frames.window > 1:
        return ()  # what moves such a network is no map over one frame
    names = [output.name for output in pack.manifest.outputs]
    spoken = [names.index(output.name) for output in speaking(pack, allow_simulated)]
    return tuple(spoken[:MOST_MAPS])


def _explained_of_tracing(
    numbers: Explained, pack: Pack, *, allow_simulated: bool
) -> tuple[int, ...]:
    """Which numbers of a tracing are explained, by their places among its targets."""
    spoken = {output.name for output in speaking(pack, allow_simulated)}
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
        if refusal.output in {output.name for output in speaking(pack, allow_simulated)}
    ]
    shown = [item for item in traced if speaking(item[0].pack, allow_simulated)]
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
        spoken = {output.name for output in speaking(pack, allow_simulated)}
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
    packs: ClipPacks,
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
    every = smooth(
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
    clip: Clip,
    reader: TracingReader,
    reading: TracingReading,
    packs: ClipPacks,
    allow_simulated: bool,
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
    every = smooth_tracing(numbers, inputs, explained, sector)
    maps = every[[spoken.index(name) for name in names]]
    return replace(reading, findings=_with_shares(reading.findings, names, maps, sector))


def smooth(
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


def smooth_tracing(
    numbers: Explained,
    inputs: NDArray[np.float32],
    outputs: Sequence[int],
    sector: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """The same of a tracing, which takes few samples."""
    return smooth(numbers, inputs, outputs, sector, samples=TRACING_SAMPLES, batch=TRACING_SAMPLES)


def _with_shares(
    findings: Sequence[Finding],
    names: Sequence[str],
    maps: NDArray[np.float32],
    sector: NDArray[np.bool_],
) -> tuple[Finding, ...]:
    # Two digits: a last bit that differs between machines makes no other finding.
    shares = dict(zip(names, outside_shares(maps, sector).round(2).tolist(), strict=True))
    return tuple(replace(finding, outside_share=shares.get(finding.output)) for finding in findings)
