"""An ECG in a worker: its findings, the stretches of it that moved them, and its picture."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.ecg.explain.gradients import integrated
from models.ecg.explain.methods import EcgMethod
from models.ecg.explain.paper import EcgShown, encode_pages
from models.ecg.explain.spans import spans_ms
from models.ecg.inputs import from_input, input_span, to_input
from models.ecg.reader import WaveformReader
from models.ecg.reading import read_ecg
from models.ecg.recording import LEADS, Ecg, EcgError, Strip, Trouble
from models.finding import Finding, Kind
from models.packs import Link, OutputSpec, Pack, PackKind
from models.readers.base import Reading
from models.threads import side_by_side
from node.analysis.model import EcgAnalysis, EcgRead, Wanted
from node.analysis.shared import MOST_MAPS, speaking, timed
from node.evidence import cautions, reportable

NO_PACK = "no pack that is in use here reads 12-lead ECGs; see 'echonode packs'"


@dataclass(frozen=True, kw_only=True)
class EcgPacks:
    """The readers of ECGs of a process. Their networks are built at the first ECG."""

    readers: tuple[WaveformReader, ...]

    @classmethod
    def read(cls, packs: Iterable[Pack]) -> Self:
        """The readers of those packs that read ECGs."""
        return cls(
            readers=tuple(
                WaveformReader(pack) for pack in packs if pack.manifest.kind is PackKind.WAVEFORM
            )
        )

    def narrowed(self, only: Collection[str] | None) -> EcgPacks:
        """These without the packs that are not named."""
        if only is None:
            return self
        return EcgPacks(readers=tuple(one for one in self.readers if one.pack.ref.name in only))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Said:
    """What a pack said of a recording, and the strip that it read; None where it could not."""

    reader: WaveformReader
    reading: Reading
    strip: Strip | None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Map:
    """What moved a finding: ``relevance`` (12, samples) over the strip that was read."""

    finding: Finding
    relevance: NDArray[np.float32]
    unit: str
    strip: Strip


def analysis_of(path: Path, packs: EcgPacks, wanted: Wanted) -> EcgAnalysis:
    """Run every waveform pack on the ECG in a file."""
    if not packs.readers:
        return EcgAnalysis(refused=NO_PACK)
    try:
        ecg = read_ecg(path)
    except EcgError as error:
        return EcgAnalysis(refused=str(error))
    troubles = tuple(_words(trouble) for trouble in ecg.troubles)
    if ecg.unusable is not None:
        return EcgAnalysis(refused=ecg.unusable, troubles=troubles)
    took_s: dict[str, float] = {}
    said = [_said(reader, ecg, took_s) for reader in packs.readers]
    maps: list[_Map] = []
    if wanted.explain:
        allow = wanted.allow_simulated
        explained = [*side_by_side(lambda one: _explained(one, allow), said)]
        said = [one for one, _ in explained]
        maps = [map_ for _, found in explained for map_ in found]
    shown = _pages(ecg, said, maps, wanted.allow_simulated)
    return EcgAnalysis(
        findings=tuple(finding for one in said for finding in one.reading.findings),
        refusals=tuple(refusal for one in said for refusal in one.reading.refusals),
        picture=encode_pages(ecg, shown, wanted.drawn) if shown else None,
        packs_run=tuple(one.reader.pack.ref for one in said),
        reading_s=took_s,
        troubles=troubles,
        reads=tuple(_read(one, one.strip, ecg) for one in said if one.strip is not None),
        pages=tuple(page.relevance_of.output for page in shown if page.relevance_of is not None),
    )


def _said(reader: WaveformReader, ecg: Ecg, took_s: dict[str, float]) -> _Said:
    with timed(reader.pack, took_s):
        reading = reader.read(ecg)
    strip = None
    if reading.findings:
        strip = reader.strip(ecg)
    return _Said(reader=reader, reading=reading, strip=strip)


def _explained(said: _Said, allow_simulated: bool) -> tuple[_Said, list[_Map]]:
    """What a pack said, with the stretches that moved each finding, and the maps of these."""
    reader, strip = said.reader, said.strip
    spoken = speaking(reader.pack, allow_simulated)[:MOST_MAPS]
    given = {finding.output: finding for finding in said.reading.findings}
    if strip is None or not any(output.name in given for output in spoken):
        return said, []
    heads = dict(zip(reader.output_names, reader.heads, strict=True))
    # Of every output, whatever was given: each other choice would be a graph of its own.
    found = integrated(
        reader.pack.settled,
        to_input(strip, reader.spec)[np.newaxis],
        tuple(heads[output.name] for output in spoken),
    ).maps[:, 0]
    maps = []
    for output, map_ in zip(spoken, found, strict=True):
        if output.name not in given:
            continue
        relevance = from_input(map_ * output.scale, strip, reader.spec)
        finding = replace(given[output.name], spans_ms=spans_ms(relevance, strip.rate_hz))
        given[output.name] = finding
        maps.append(_Map(finding=finding, relevance=relevance, unit=_unit(output), strip=strip))
    findings = tuple(given.values())
    return replace(said, reading=replace(said.reading, findings=findings)), maps


def _pages(
    ecg: Ecg, said: Sequence[_Said], maps: Sequence[_Map], allow_simulated: bool
) -> list[EcgShown]:
    """A page for each explained finding, the highest scores first."""
    findings = [finding for one in said for finding in one.reading.findings]
    spoken = reportable(findings, allow_simulated=allow_simulated)[0]
    packs = [one.reader.pack for one in said]
    refusals = tuple(
        refusal
        for one in said
        for refusal in one.reading.refusals
        if refusal.output in {each.name for each in speaking(one.reader.pack, allow_simulated)}
    )
    return [
        EcgShown(
            findings=spoken,
            refusals=refusals,
            cautions=cautions(spoken, packs),
            relevance=map_.relevance,
            relevance_of=map_.finding,
            method=EcgMethod.INTEGRATED_GRADIENTS.words,
            unit=map_.unit,
            beat=None if map_.strip is ecg.rhythm else map_.strip,
        )
        for map_ in sorted(maps, key=lambda each: -(each.finding.score or 0.0))[:MOST_MAPS]
    ]


def _unit(output: OutputSpec) -> str:
    """What the parts of a number are in: a score's add up to its logit, which has no unit."""
    return "" if output.kind is Kind.SCORE or output.link is Link.LOG else output.unit


def _read(said: _Said, strip: Strip, ecg: Ecg) -> EcgRead:
    """Which stretch of the recording a pack read."""
    reader = said.reader
    begin_ms, end_ms = input_span(strip, reader.spec)
    stands = strip is ecg.rhythm or strip is ecg.median
    channels = (strip.channels[LEADS.index(lead)] for lead in reader.spec.leads)
    return EcgRead(
        pack=reader.pack.ref,
        signal=reader.spec.signal,
        group=strip.group if stands else 0,
        channels=tuple(sorted(channel for channel in channels if channel)) if stands else (),
        begin_ms=round(max(0.0, begin_ms), 3),
        end_ms=round(min(1000.0 * strip.duration_s, end_ms), 3),
    )


def _words(trouble: Trouble) -> str:
    """What cannot be trusted, with the leads that it is about."""
    return f"{', '.join(trouble.leads)}: {trouble.words}" if trouble.leads else trouble.words
