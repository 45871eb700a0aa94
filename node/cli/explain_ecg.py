"""``echonode explain ECG``: where in a recording a value came from; and the checks of ECG packs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node.cli.output import ExitCode, Problem, print_json, print_table, print_text, say

if TYPE_CHECKING:
    from models.ecg.explain.battery import WaveformReport
    from models.ecg.explain.explained import ExplainedEcg
    from models.ecg.explain.methods import EcgMethod
    from models.ecg.reader import WaveformReader
    from models.ecg.recording import Ecg
    from models.finding import Finding, Refusal
    from models.packs import Pack

METHODS = "integrated-gradients, lrp, grad-cam, smoothgrad or gradient"
USUAL = "integrated-gradients"
CHECKED_ON = "simulated-ecg:records=60"


def is_ecg(path: Path) -> bool:
    """Whether a file is an ECG that can be read."""
    from models.ecg.reading import is_ecg_file

    return path.is_file() and is_ecg_file(path)


def explain_file(
    path: Path,
    packs: Sequence[Pack],
    output: str | None,
    method: str,
    out: Path,
    *,
    allow_simulated: bool,
    as_json: bool,
) -> None:
    """Explain what packs say of an ECG, a PNG page for each output."""
    from models.ecg.reading import read_ecg
    from models.ecg.recording import EcgError
    from models.explain.target import ExplainError
    from models.packs import PackError

    how = _method(method)
    try:
        ecg = read_ecg(path)
        if ecg.unusable:
            raise Problem(f"{path}: {ecg.unusable}")
        said = [_said(reader, ecg) for reader in _readers(packs, output)]
        explained = _explained(ecg, said, output, how, allow_simulated=allow_simulated)
    except EcgError as error:
        raise Problem(f"{path}: {error}") from error
    except (ExplainError, PackError) as error:
        raise Problem(str(error)) from error
    if not explained:
        raise Problem(f"{path}: nothing was found that could be explained; see the notes")
    records = _write(path, ecg, said, explained, how, out)
    if as_json:
        print_json({"explanations": records})
        return
    print_table(
        "Explanations",
        ("output", "value", "95 % interval", "pack", "moved most at", "picture"),
        [
            (one["title"], one["shown"], one["interval"], one["pack"], _spans(one["spans_ms"]),
             one["png"])
            for one in records
        ],
        long=("moved most at", "picture"),
    )  # fmt: skip
    print_text(f"Method: {how.words}. Research use only, not for diagnosis.")


def is_of_ecgs(where: str) -> bool:
    """Whether a data set that was named holds ECGs."""
    from models.data.dataset import DatasetError
    from models.data.ecgs import open_ecgs

    try:
        open_ecgs(where)
    except DatasetError:
        return False
    return True


def check(pack: Pack, given: Sequence[str]) -> tuple[WaveformReport, tuple[Path, ...]]:
    """Check a pack's explanations and write the report into its folder."""
    from models.data.dataset import DatasetError
    from models.data.ecgs import open_ecgs
    from models.ecg.explain.battery import check_waveform_pack, write_report
    from models.explain.target import ExplainError
    from models.packs import PackError

    try:
        report = check_waveform_pack(pack, [open_ecgs(where) for where in given or (CHECKED_ON,)])
        return report, write_report(report, pack.folder)
    except DatasetError as error:
        raise Problem(str(error), ExitCode.USAGE) from error
    except (ExplainError, PackError) as error:
        raise Problem(f"pack {pack.manifest.name}: {error}") from error
    except OSError as error:
        raise Problem(f"{pack.folder}: cannot be written: {error.strerror}") from error


@dataclass(frozen=True, kw_only=True, eq=False)
class _Said:
    """What a pack said of the recording."""

    reader: WaveformReader
    findings: tuple[Finding, ...]
    refusals: tuple[Refusal, ...]


def _method(name: str) -> EcgMethod:
    from models.ecg.explain.methods import EcgMethod

    try:
        return EcgMethod(name)
    except ValueError:
        raise Problem(f"no method {name!r} for ECGs; there are {METHODS}", ExitCode.USAGE) from None


def _readers(packs: Sequence[Pack], output: str | None) -> list[WaveformReader]:
    """Those packs that read ECGs and, where one is named, give the output."""
    from models.ecg.reader import WaveformReader
    from models.packs import PackKind

    newest = {pack.manifest.name: pack for pack in packs}
    readers = [
        WaveformReader(pack) for pack in newest.values() if pack.manifest.kind is PackKind.WAVEFORM
    ]
    if not readers:
        raise Problem("no pack here reads ECGs; `echonode packs` lists them", ExitCode.NOT_FOUND)
    known = sorted({name for reader in readers for name in reader.output_names})
    if output is not None and output not in known:
        raise Problem(
            f"no output {output!r} of ECGs; there are {', '.join(known)}", ExitCode.NOT_FOUND
        )
    return [reader for reader in readers if output is None or output in reader.output_names]


def _said(reader: WaveformReader, ecg: Ecg) -> _Said:
    reading = reader.read(ecg)
    return _Said(reader=reader, findings=reading.findings, refusals=reading.refusals)


def _explained(
    ecg: Ecg,
    said: Sequence[_Said],
    output: str | None,
    method: EcgMethod,
    *,
    allow_simulated: bool,
) -> list[ExplainedEcg]:
    """What may speak, or what was asked for by name, explained; why not is said."""
    from models.ecg.explain.explained import explain_ecg
    from node.evidence import why_withheld

    explained: list[ExplainedEcg] = []
    for one in said:
        for refusal in one.refusals:
            if output in (None, refusal.output):
                say(f"note: {refusal.output} by {refusal.pack.name} is not given: {refusal.reason}")
        # Whoever names an output sees it, marked; only guesses at the person stay switched off.
        wanted = [
            finding
            for finding in one.findings
            if output in (None, finding.output)
            and why_withheld(
                finding.output,
                finding.evidence,
                allow_simulated=allow_simulated or output is not None,
            )
            is None
        ]
        if wanted:
            explained += explain_ecg(one.reader, ecg, wanted, method)
    return explained


def _write(
    path: Path,
    ecg: Ecg,
    said: Sequence[_Said],
    explained: Sequence[ExplainedEcg],
    method: EcgMethod,
    out: Path,
) -> list[dict[str, Any]]:
    """A page for each explained output; their names tell the file's content, and no one's name."""
    from PIL import Image

    from models.ecg.explain.paper import EcgShown, draw_ecg
    from models.explain.words import long_name
    from node.cli.findings import finding_json, interval, value
    from node.evidence import cautions

    key = hashlib.sha256(path.read_bytes()).hexdigest()[:10]
    shown = tuple(one.finding for one in explained)
    refusals = tuple(refusal for one in said for refusal in one.refusals)
    packs = [one.reader.pack for one in said]
    records = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for one in explained:
            page = draw_ecg(
                ecg,
                EcgShown(
                    findings=shown,
                    refusals=refusals,
                    cautions=cautions((one.finding,), packs),
                    relevance=one.relevance,
                    relevance_of=one.finding,
                    method=method.words,
                    unit=one.unit,
                    beat=one.strip if one.beat else None,
                ),
            )
            name = one.finding.pack.name
            png = out / f"explain-{key}-{name}-{one.finding.output}-{method.value}.png"
            Image.fromarray(page).save(png, "PNG", optimize=True)
            found = finding_json(one.finding)
            records.append(
                {
                    **found,
                    "title": long_name(one.finding.output),
                    "shown": value(found),
                    "interval": interval(found),
                    "method": method.value,
                    "relevance_unit": one.unit,
                    "by_lead": _shares(one),
                    "png": png,
                }
            )
    except OSError as error:
        raise Problem(f"{out}: cannot be written: {error.strerror}; name another --out") from error
    return records


def _shares(one: ExplainedEcg) -> dict[str, float]:
    """How much of all relevance, signs left aside, lies in each lead."""
    import numpy as np

    from models.ecg.recording import LEADS

    sizes = np.abs(one.relevance.astype(np.float64)).sum(axis=1)
    total = float(sizes.sum()) or 1.0
    return {lead: round(float(size) / total, 4) for lead, size in zip(LEADS, sizes, strict=True)}


def _spans(spans: Sequence[Sequence[float]]) -> str:
    return ", ".join(f"{begin / 1000:.2f}-{end / 1000:.2f} s" for begin, end in spans) or "-"
