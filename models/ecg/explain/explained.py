"""What moved the values that a pack gave of a recording, laid on the recording itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from models.ecg.explain.gradients import SEED
from models.ecg.explain.methods import EcgMethod, relevance
from models.ecg.explain.spans import spans_ms
from models.ecg.inputs import from_input, to_input
from models.ecg.reader import WaveformReader
from models.ecg.recording import Ecg, Strip
from models.explain.target import ExplainError
from models.finding import Finding, Kind
from models.packs import Link, OutputSpec


@dataclass(frozen=True, kw_only=True, eq=False)
class ExplainedEcg:
    """One explained output.

    ``relevance`` (12, samples) is over ``strip``, which the pack read: the recording's rhythm, or
    a median ``beat``. ``finding`` bears the stretches that moved it most. ``unit`` says what the
    numbers of the relevance are.
    """

    finding: Finding
    strip: Strip = field(repr=False)
    beat: bool
    relevance: NDArray[np.float32] = field(repr=False)
    unit: str


def explain_ecg(
    reader: WaveformReader,
    ecg: Ecg,
    findings: Sequence[Finding],
    method: EcgMethod,
    *,
    seed: int = SEED,
) -> tuple[ExplainedEcg, ...]:
    """Explain findings that this reader gave of this recording.

    Raises
    ------
    EcgError
        If the recording is too short, or leads are missing.
    ExplainError
        If a finding is none of the pack's, or the network cannot be explained so.
    """
    strip = reader.strip(ecg)
    inputs = to_input(strip, reader.spec)[np.newaxis]
    explained = []
    for finding in findings:
        output, head = output_of(reader, finding.output)
        maps = relevance(reader.pack.network, inputs, head, method, seed=seed)
        laid = from_input(maps[0] * output.scale, strip, reader.spec)
        explained.append(
            ExplainedEcg(
                finding=replace(finding, spans_ms=spans_ms(laid, strip.rate_hz)),
                strip=strip,
                beat=strip is not ecg.rhythm,
                relevance=laid,
                unit=unit_of(output, method),
            )
        )
    return tuple(explained)


def output_of(reader: WaveformReader, name: str) -> tuple[OutputSpec, int]:
    """An output of a pack, and its place on the network's last axis.

    Raises
    ------
    ExplainError
        If the pack has none of this name.
    """
    for output, head in zip(reader.pack.manifest.outputs, reader.heads, strict=True):
        if output.name == name:
            return output, head
    raise ExplainError(
        f"pack {reader.pack.manifest.name} has no output {name!r}; it has "
        f"{', '.join(reader.output_names)}"
    )


def unit_of(output: OutputSpec, method: EcgMethod) -> str:
    """What a map's numbers are, for a reader; empty where they have no unit."""
    if method is EcgMethod.GRAD_CAM:
        return ""
    number = output.unit
    if output.kind is Kind.SCORE:
        number = "log odds"
    elif output.link is Link.LOG:
        number = f"log {output.unit}"
    return f"{number} a sample" if method.additive else f"{number} per mV"
