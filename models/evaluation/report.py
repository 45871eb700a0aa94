"""A pack's report on a data set: what was measured on whom, and in which words it may be said.

:func:`evaluate_pack` reads the cases of a split and works out the figures; :func:`write_report`
writes ``evaluation.md``, ``evaluation.json`` and pictures. What each figure means stands
in docs/evaluation.md.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from models.data.dataset import Source
from models.evaluation import figures, metrics
from models.evaluation.figures import Measurement, Score, Structure, Views
from models.evaluation.reading import Answer, read_cases, view_classes
from models.finding import Evidence, Kind
from models.packs import Pack, PackKind

SCHEMA = 1
"""Version of ``evaluation.json``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Untested:
    """An output that this data set cannot judge, and why."""

    output: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetWords:
    """Which data: all that a reader needs to know whom the figures are about."""

    name: str
    title: str
    evidence: Evidence
    split: str
    patients: int
    clips: int
    fingerprint: str
    licence: str
    citation: str
    caveats: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything measured of a pack on one split of one data set.

    ``unreadable`` counts clips that could not be read at all, by reason.
    """

    pack: str
    version: str
    weights_sha256: str
    kind: PackKind
    dataset: DatasetWords
    measurements: tuple[Measurement, ...]
    scores: tuple[Score, ...]
    views: Views | None
    structures: tuple[Structure, ...]
    untested: tuple[Untested, ...]
    unreadable: Mapping[str, int]

    @property
    def empty(self) -> bool:
        """Whether nothing could be measured."""
        return not (self.measurements or self.scores or self.views or self.structures)

    @property
    def outputs(self) -> tuple[Measurement | Score, ...]:
        """What was measured of each output, measurements first."""
        return (*self.measurements, *self.scores)

    @property
    def slug(self) -> str:
        """For file names: the data set, and the split where it is not the one for reports."""
        name = "".join(c if c.isalnum() else "-" for c in self.dataset.name.lower()).strip("-")
        return name if self.dataset.split == "valid" else f"{name}-{self.dataset.split}"

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON: an estimate is [value, low, high], and what is NaN is null."""
        plain: dict[str, Any] = _plain(self)
        return plain

    def as_markdown(self, pictures: Mapping[str, str] | None = None) -> str:
        """The report for a reader; ``pictures`` are file names by what they show."""
        from models.evaluation.page import section

        return "\n".join(section(self, pictures or {}))


def evaluate_pack(
    pack: Pack,
    dataset: Source,
    *,
    split: str = "valid",
    draws: int = metrics.DRAWS,
    on_case: Callable[[int, int], None] = lambda _done, _of: None,
) -> Report:
    """Read every case of a split with a pack, and measure.

    Parameters
    ----------
    draws
        Samples of patients in each bootstrap.
    on_case
        Told how many cases are done, of how many.

    Raises
    ------
    models.data.dataset.DatasetError
        If there is no such split.
    models.packs.PackError
        If no reader can run the pack.
    """
    answers = read_cases(pack, dataset.cases(split), on_case=on_case)
    return report_of(pack, dataset, answers, split=split, draws=draws)


def report_of(
    pack: Pack,
    dataset: Source,
    answers: Sequence[Answer],
    *,
    split: str,
    draws: int = metrics.DRAWS,
) -> Report:
    """The report of answers that :func:`models.evaluation.reading.read_cases` gave."""
    manifest = pack.manifest
    measurements: list[Measurement] = []
    scores: list[Score] = []
    untested: list[Untested] = []
    for output in manifest.outputs:
        found: Measurement | Score | None
        if output.kind is Kind.SCORE:
            found = figures.score(output, answers, draws=draws)
            scores += [found] if found else []
        else:
            found = figures.measurement(output, answers, draws=draws)
            measurements += [found] if found else []
        if found is None:
            untested.append(Untested(output=output.name, reason=_why(output.name, answers)))
    views = None
    if manifest.kind is PackKind.VIEW:
        views = figures.views(
            view_classes(pack),
            dataset.evidence,
            answers,
            draws=draws,
            certain_from=manifest.certain_from or 0.0,
        )
        if views is None:
            untested.append(Untested(output="view", reason="the data set does not say the view"))
    return Report(
        pack=manifest.name,
        version=manifest.version,
        weights_sha256=manifest.weights_sha256,
        kind=manifest.kind,
        dataset=DatasetWords(
            name=dataset.name,
            title=dataset.title,
            evidence=dataset.evidence,
            split=split,
            patients=len({one.case.patient for one in answers}),
            clips=len(answers),
            fingerprint=dataset.fingerprint,
            licence=dataset.licence,
            citation=dataset.citation,
            caveats=tuple(dataset.caveats),
        ),
        measurements=tuple(measurements),
        scores=tuple(scores),
        views=views,
        structures=figures.structures(answers, draws=draws),
        untested=tuple(untested),
        unreadable=dict(Counter(one.problem for one in answers if one.problem).most_common()),
    )


def write_report(folder: Path, report: Report | Sequence[Report], *, plots: bool = True) -> None:
    """Write ``evaluation.md``, ``evaluation.json`` and the pictures ``evaluation-*.png``.

    Several reports are those of one pack on several data sets. What was there of an earlier
    report is replaced.
    """
    from models.evaluation.page import page

    reports = (report,) if isinstance(report, Report) else tuple(report)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("evaluation-*.png"):
        old.unlink()
    pictures: list[Mapping[str, str]] = [{} for _ in reports]
    if plots:
        from models.evaluation.pictures import write_pictures

        named = zip(reports, slugs(reports), strict=True)
        pictures = [write_pictures(folder, one, slug) for one, slug in named]
    (folder / "evaluation.json").write_text(json.dumps(as_json(reports), indent=1) + "\n")
    (folder / "evaluation.md").write_text(page(reports, pictures))


def slugs(reports: Sequence[Report]) -> tuple[str, ...]:
    """For file names and keys: each report's own, numbered where data sets share a name."""
    found: list[str] = []
    for report in reports:
        same = sum(one.slug == report.slug for one in reports[: len(found)])
        found.append(report.slug if not same else f"{report.slug}-{same + 1}")
    return tuple(found)


def add_section(
    folder: Path, name: str, *, title: str, lines: Sequence[str], data: Mapping[str, Any]
) -> None:
    """Put what was checked besides into a pack's report: again under one name replaces it.

    Parameters
    ----------
    folder
        Where :func:`write_report` wrote.
    name
        Its key under ``sections`` in ``evaluation.json``.
    title, lines
        Its heading and its Markdown in ``evaluation.md``.
    data
        Its figures, ready for JSON.
    """
    held = json.loads((folder / "evaluation.json").read_text())
    held.setdefault("sections", {})[name] = dict(data)
    (folder / "evaluation.json").write_text(json.dumps(held, indent=1) + "\n")
    begin, end = _marks(name)
    page = (folder / "evaluation.md").read_text()
    if begin in page:
        before, rest = page.split(begin, maxsplit=1)
        page = before + rest.split(end, maxsplit=1)[1].lstrip("\n")
    part = "\n".join([begin, "", f"## {title}", "", *lines, "", end, ""])
    (folder / "evaluation.md").write_text(page.rstrip("\n") + "\n\n" + part)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sections:
    """The sections of a report, to put them back: those of weights with this checksum."""

    weights_sha256: str
    data: Mapping[str, Any]
    parts: Mapping[str, str]  #: Markdown, marks and heading included


def sections_of(folder: Path) -> Sections:
    """What :func:`add_section` put into a folder's report; nothing where there is no report."""
    try:
        held = json.loads((folder / "evaluation.json").read_text())
        page = (folder / "evaluation.md").read_text()
    except (OSError, ValueError):
        return Sections(weights_sha256="", data={}, parts={})
    data: dict[str, Any] = held.get("sections", {})
    parts = {}
    for name in data:
        begin, end = _marks(name)
        if begin in page and end in page:
            parts[name] = begin + page.split(begin, maxsplit=1)[1].split(end, maxsplit=1)[0] + end
    return Sections(weights_sha256=held.get("weights_sha256", ""), data=data, parts=parts)


def restore_sections(folder: Path, sections: Sections) -> None:
    """Put sections back that a new report of the same weights does not have itself."""
    held = json.loads((folder / "evaluation.json").read_text())
    if held["weights_sha256"] != sections.weights_sha256:
        return
    page = (folder / "evaluation.md").read_text()
    for name, part in sections.parts.items():
        if name not in held.get("sections", {}):
            held.setdefault("sections", {})[name] = sections.data[name]
            page = page.rstrip("\n") + "\n\n" + part + "\n"
    (folder / "evaluation.json").write_text(json.dumps(held, indent=1) + "\n")
    (folder / "evaluation.md").write_text(page)


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def as_json(reports: Sequence[Report]) -> dict[str, Any]:
    """What ``evaluation.json`` holds: which pack, and its report on each data set."""
    first = reports[0]
    return {
        "schema": SCHEMA,
        "pack": first.pack,
        "version": first.version,
        "weights_sha256": first.weights_sha256,
        "reports": [one.as_json() for one in reports],
    }


def _why(output: str, answers: Sequence[Answer]) -> str:
    known = [one for one in answers if output in one.case.truths]
    if not known:
        return "the data set does not have its truth"
    reasons = Counter(one.problem or one.refused.get(output, "no answer") for one in known)
    return f"no value for any of {len(known)} clips: {reasons.most_common(1)[0][0]}"


def _plain(value: Any) -> Any:
    if isinstance(value, metrics.Estimate):
        return [_plain(number) for number in (value.value, value.low, value.high)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            one.name: _plain(getattr(value, one.name))
            for one in dataclasses.fields(value)
            if not one.metadata.get("drawn")
        }
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
