"""The summary page: a study's results on one picture, that every viewer shows.

A Secondary Capture of one frame (PS3.3 A.8.1) in a series of its own. What stands on it: the
value to read first, end diastole and end systole with their tracings, the volume curves, every
value with its interval and evidence, which clips were read and what was not, and why. Stills and
curves come from the saliency cines, so that nothing is computed again.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage

from models.explain.panels import to_jpeg
from models.explain.shown import MarkKind
from models.explain.words import (
    interval_words,
    long_name,
    number_words,
    short_name,
    unit_words,
    value_words,
)
from models.finding import Evidence, Finding, PackRef
from models.tasks import TASKS
from models.views import View
from node.results.capture import CaptureSeries, add_pixels, source_image, started
from node.results.cine import Cine, read_cine
from node.results.codes import VIEWS
from node.results.content import plain
from node.results.evidence import NOTHING_KNOWN, TestedOn, evidence_words, outside_words
from node.results.groups import counted, pack_words, verdict
from node.results.header import add_equipment, add_times
from node.results.objects import (
    RESEARCH_WORDS,
    ClipResult,
    EncodedObject,
    ReportSettings,
    ResultError,
    content_uid,
    encode,
    mark_as_own,
)
from node.results.page_drawing import ClipCurve, Headline, Page, Row, Still, draw_page
from node.results.report import ClipSource, sources_of
from node.results.summary import Mean, Summary, summarise

MOST_CLIPS = 4
"""Clips with a column in the table of values; all others stand in the report."""

MOST_CURVES = 3

_QUALITY = 92  # one frame, and words
_MAX_ST = 1024  # PS3.5 6.2
_WARNED = "SIMULATED ONLY"

Cines = Mapping[str, bytes]
"""By the SOP Instance UID of a capture: its Part-10 file."""


def build_page(
    clips: Sequence[ClipResult],
    cines: Cines,
    *,
    revision: int,
    settings: ReportSettings,
    created_at: datetime,
    tested_on: TestedOn = NOTHING_KNOWN,
) -> EncodedObject:
    """The summary page of a study.

    Parameters
    ----------
    clips
        Every clip of the study, in any order.
    cines
        The captures that the clips name, as far as there are any.
    revision
        That of the report beside it; becomes the Instance Number.
    created_at
        When the page was made, with a time zone. It is in the object, but not in its UID.
    tested_on
        On which data each output was tested, for the words beside the first value.

    Returns
    -------
    EncodedObject
        JPEG Baseline. The same inputs give the same SOP Instance UID.

    Raises
    ------
    ResultError
        If the clips are none, or of several studies, or a finding contradicts itself.
    """
    if revision < 1:
        raise ResultError(f"revision {revision}: the first is 1")
    sources = sources_of(clips, settings)
    page = _page(sources, cines, settings, tested_on)
    pixels = draw_page(page)
    jpeg = to_jpeg(pixels, _QUALITY)
    read = [source for source in sources if source.findings] or [
        source for source in sources if source.result.not_analysed is None
    ]
    headers = [source.result.header for source in (read or sources)]
    dataset = started(
        headers[0],
        SecondaryCaptureImageStorage,
        CaptureSeries(
            kind="PAGE",
            number=settings.page_series_number,
            description=settings.page_series_description,
            modality=settings.capture_modality,
        ),
        settings,
    )
    dataset.InstanceNumber = revision
    findings = [finding for source in sources for finding in source.findings]
    dataset.DerivationDescription = _derivation(findings)
    dataset.SourceImageSequence = [source_image(header) for header in headers]
    add_equipment(dataset, settings, _packs(sources))
    add_pixels(dataset, headers, [jpeg], *pixels.shape[:2])
    mark_as_own(dataset, "SC")
    dataset.SOPInstanceUID = _instance_uid(dataset, page)
    add_times(dataset, headers[0], created_at)
    return encode(dataset, JPEGBaseline8Bit)


def _derivation(findings: Sequence[Finding]) -> str:
    words = f"Summary page of the study. {evidence_words(findings)}"
    if len(words) > _MAX_ST:  # what must be said goes before what may be
        words = f"{RESEARCH_WORDS}. {words}"
    return plain(words)[:_MAX_ST].strip()


def _instance_uid(dataset: Dataset, page: Page) -> str:
    """From all but the pixels; the words stand for what the pixels show."""
    said = Dataset()
    said.update(dataset)
    said.ImageComments = hashlib.sha256("\n".join(page.words).encode()).hexdigest()
    return content_uid(
        said, leave_out=("PixelData", "LossyImageCompressionRatio", "Rows", "Columns")
    )


def _packs(sources: Iterable[ClipSource]) -> list[PackRef]:
    packs = {
        pack
        for source in sources
        for pack in (*source.result.packs, *(finding.pack for finding in source.findings))
    }
    return sorted(packs, key=lambda pack: (pack.name, pack.version, pack.weights_sha256))


# What stands on it.


def _page(
    sources: Sequence[ClipSource], cines: Cines, settings: ReportSettings, tested_on: TestedOn
) -> Page:
    summary = summarise(
        [source.result for source in sources], [source.findings for source in sources]
    )
    titles = {id(source): _title(source, number) for number, source in enumerate(sources, 1)}
    read = [source for source in sources if source.findings]
    first = [sources[index] for index, _ in summary.ejection.members] if summary else []
    ordered = [*first, *(each for each in read if not any(each is one for one in first))]
    columns = ordered[:MOST_CLIPS]
    films = {id(source): film for source in columns if (film := _film(source, cines))}
    names = _names(source.result.header for source in sources)
    return Page(
        headline=_headline(summary, [titles[id(source)] for source in first], tested_on, sources),
        stills=tuple(_stills(ordered, films, titles)),
        curves=tuple(
            _curve(source, films[id(source)], titles[id(source)])
            for source in [each for each in ordered if _has_curve(films.get(id(each)))]
        )[:MOST_CURVES],
        clips=tuple(titles[id(source)] for source in columns),
        rows=tuple(_rows(columns)),
        notes=tuple(
            (heading, tuple(_without(line, names) for line in lines))
            for heading, lines in (
                *_notes(sources, ordered, titles),
                ("How the models were tested", list(_tested(columns, tested_on))),
            )
            if lines
        ),
        footer=" · ".join(
            (f"echonode {settings.software_version}", *map(pack_words, _packs(sources)))
        ),
    )


def _headline(
    summary: Summary | None,
    clips: Sequence[str],
    tested_on: TestedOn,
    sources: Sequence[ClipSource],
) -> Headline:
    name = long_name("ef")
    if summary is None:
        given = any(finding.output == "ef" for source in sources for finding in source.findings)
        why = "differs by stage: see the table" if given else "not given"
        return Headline(name=name, value=why)
    mean = summary.ejection
    lines = [*_interval_line(mean)]
    noun = "beat" if mean.of_beats else "clip"
    if mean.deviation is not None:
        lines.append(
            f"Mean of {counted(len(mean.values), noun)}, {min(mean.values):.0f} to "
            f"{max(mean.values):.0f} %, standard deviation {mean.deviation:.1f} points"
        )
    lines.append(f"{', '.join(clips)}; {summary.method.value}, {pack_words(summary.pack)}")
    for volume in summary.volumes:
        interval = "".join(f" ({words})" for words in _bounds(volume))
        value = number_words(volume.value, volume.unit) + unit_words(volume.unit)
        lines.append(f"{short_name(volume.output)} {value}{interval}")
    warnings = []
    tested = tested_on.get((summary.pack, "ef"), "").strip().rstrip(".")
    if summary.evidence is Evidence.SIMULATED:
        warnings.append("FOR DEMONSTRATION: has only seen simulated clips, never a patient")
    elif tested:
        lines.append(f"Tested on patients: {tested}")
    else:
        lines.append("Tested on patients that training never saw")
    outside = outside_words(finding for _, finding in mean.members)
    if outside:
        warnings.append(outside)
    value = number_words(mean.value, mean.unit) + unit_words(mean.unit)
    return Headline(name=name, value=value, lines=tuple(lines), warnings=tuple(warnings))


def _bounds(mean: Mean) -> Iterator[str]:
    if mean.low is not None and mean.high is not None:
        low, high = (number_words(bound, mean.unit) for bound in (mean.low, mean.high))
        yield f"{low} to {high}"


def _interval_line(mean: Mean) -> Iterator[str]:
    for words in _bounds(mean):
        yield f"95 % interval {words}{unit_words(mean.unit)}"


def _stills(
    ordered: Sequence[ClipSource], films: Mapping[int, Cine], titles: Mapping[int, str]
) -> Iterator[Still]:
    """End diastole and end systole of the first clip that has a tracing."""
    for source in ordered:
        film = films.get(id(source))
        if film is None:
            continue
        stills = []
        for kind, words in (
            (MarkKind.END_DIASTOLE, "End diastole"),
            (MarkKind.END_SYSTOLE, "End systole"),
        ):
            for number in film.nearest(kind)[:1]:
                pixels = film.tracing(number)
                if pixels is not None:
                    frame = film.source_frames[number - 1] if film.source_frames else number
                    title = f"{words} · {titles[id(source)]} · frame {frame}"
                    stills.append(Still(title=title, pixels=pixels))
        if stills:
            yield from stills
            return


def _has_curve(film: Cine | None) -> bool:
    return film is not None and film.curve is not None and len(film.curve.times_ms) > 1


def _curve(source: ClipSource, film: Cine, title: str) -> ClipCurve:
    curve = film.curve
    assert curve is not None  # noqa: S101
    start = curve.times_ms[0]
    diastoles, systoles = (
        tuple(sorted(start + film.time_ms(number) for number in film.nearest(kind)))
        for kind in (MarkKind.END_DIASTOLE, MarkKind.END_SYSTOLE)
    )
    beats = [
        f"{short_name(finding.output)} by beat: "
        + ", ".join(number_words(value, finding.unit) for value in finding.per_beat)
        + unit_words(finding.unit)
        for finding in source.findings
        if len(finding.per_beat) > 1
    ]
    return ClipCurve(
        title=title,
        curve=curve,
        diastoles_ms=diastoles,
        systoles_ms=systoles,
        lines=(_view_words(source), *beats),
    )


def _rows(columns: Sequence[ClipSource]) -> Iterator[Row]:
    """A line for each output and pack, in the order of the outputs' table."""
    keys: dict[tuple[str, PackRef, Evidence], None] = {}
    for output in TASKS:
        for source in columns:
            for finding in source.findings:
                if finding.output == output:
                    keys[(output, finding.pack, finding.evidence)] = None
    for output, pack, evidence in keys:
        simulated = evidence is Evidence.SIMULATED
        yield Row(
            name=long_name(output),
            by=pack_words(pack),
            cells=tuple(_cell(source, output, pack, evidence) for source in columns),
            tested_on=_WARNED if simulated else "patients",
            warning=simulated,
        )


def _cell(source: ClipSource, output: str, pack: PackRef, evidence: Evidence) -> str:
    for finding in source.findings:
        if (finding.output, finding.pack, finding.evidence) == (output, pack, evidence):
            interval = interval_words(finding)
            words = value_words(finding) + (f" ({interval})" if interval else "")
            said = verdict(finding)
            words += f", {said.meaning.lower()}" if said is not None else ""
            return f"! {words}" if finding.looked_outside else words
    return "-"


def _notes(
    sources: Sequence[ClipSource], ordered: Sequence[ClipSource], titles: Mapping[int, str]
) -> Iterator[tuple[str, list[str]]]:
    outside = [
        f"! {titles[id(source)]}: {words}"
        for source in ordered
        if (words := outside_words(source.findings))
    ]
    yield "Mind", outside
    later = len(ordered) - MOST_CLIPS
    read = [f"{titles[id(source)]}: {_view_words(source)}" for source in ordered]
    if later > 0:
        read = [*read[:MOST_CLIPS], f"{counted(later, 'more clip')}: see the report"]
    yield "Clips that were read", read
    yield "Not given", list(_refused(ordered or sources, titles))
    yield "Not analysed", list(_not_analysed(sources, titles))


def _refused(sources: Sequence[ClipSource], titles: Mapping[int, str]) -> Iterator[str]:
    """Each reason once, with the outputs, packs and clips that it is about."""
    refused: dict[str, list[tuple[str, str, str]]] = {}
    for source in sources:
        for refusal in source.result.refusals:
            about = short_name(refusal.output), pack_words(refusal.pack), titles[id(source)]
            refused.setdefault(refusal.reason.rstrip("."), []).append(about)
    for reason, of in refused.items():
        outputs, packs, clips = (list(dict.fromkeys(each)) for each in zip(*of, strict=True))
        yield f"{', '.join(outputs)} by {', '.join(packs)}: {reason} ({_few(clips)})"


def _not_analysed(sources: Sequence[ClipSource], titles: Mapping[int, str]) -> Iterator[str]:
    """Clips of other views in one line, and each further reason in one of its own."""
    views: Counter[str] = Counter()
    reasons: dict[str, list[str]] = {}
    for source in sources:
        if source.result.not_analysed is None:
            continue
        view = source.result.view
        if view is not None and view.certain and view.view is not View.A4C:
            views[VIEWS[view.view].title] += 1
        else:
            reason = source.result.not_analysed.rstrip(".")
            reasons.setdefault(reason, []).append(titles[id(source)])
    if views:
        each = ", ".join(f"{title} {count}" for title, count in views.most_common())
        yield f"{counted(views.total(), 'clip')} of views that no model measures: {each}"
    for reason, of in reasons.items():
        yield f"{counted(len(of), 'clip')}: {reason} ({_few(of)})"


def _tested(columns: Sequence[ClipSource], tested_on: TestedOn) -> Iterator[str]:
    """For each data set, what every output that is shown reached on it."""
    findings = [finding for source in columns for finding in source.findings]
    by_data: dict[str, dict[str, None]] = {}
    for output in TASKS:
        for pack in dict.fromkeys(each.pack for each in findings if each.output == output):
            # "Data set, patients: figures", as packs write it.
            data, _, figures = tested_on.get((pack, output), "").rpartition(": ")
            if figures:
                words = f"{long_name(output)} by {pack_words(pack)}: {figures}"
                by_data.setdefault(data, {})[words] = None
    for data, lines in by_data.items():
        if data:
            yield f"On {data}"
        yield from lines


def _few(titles: Sequence[str], most: int = 6) -> str:
    more = f" and {len(titles) - most} more" if len(titles) > most else ""
    return ", ".join(titles[:most]) + more


def _view_words(source: ClipSource) -> str:
    view = source.result.view
    if view is None:
        return "view not determined"
    sure = "" if view.certain else "uncertain, perhaps "
    return f"{sure}{VIEWS[view.view].title}, score {view.score:.2f}"


def _title(source: ClipSource, number: int) -> str:
    """Which clip, without a UID."""
    title = source.title if "." not in source.title else f"clip {number}"
    return title[0].upper() + title[1:]


def _film(source: ClipSource, cines: Cines) -> Cine | None:
    capture = source.result.capture
    data = None if capture is None else cines.get(capture.sop_instance_uid)
    if data is None:
        return None
    try:
        return read_cine(data)
    except ResultError:
        return None  # kept in another form: the page does without it


# No name leaves in pixels.

_NAMING = (
    "PatientName",
    "PatientID",
    "OtherPatientIDs",
    "OtherPatientNames",
    "PatientBirthDate",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "OperatorsName",
)
_SHORTEST = 3  # letters: a part of a name that is shorter is part of too many words


def _names(headers: Iterable[Dataset]) -> frozenset[str]:
    """Whatever in the headers names a person or a number of theirs, in single words."""
    words: set[str] = set()
    for header in headers:
        for keyword in _NAMING:
            try:
                value = header.get(keyword)
            except (ValueError, LookupError):
                continue  # bytes that nobody can read name nobody in our words
            words.update(re.split(r"[\s^=,\\\[\]']+", str(value or "")))
    return frozenset(word for word in words if len(word) >= _SHORTEST)


def _without(words: str, names: frozenset[str]) -> str:
    """The words with every name left out: a reason may quote what a file says."""
    return re.sub(r"[\w.\-]+", lambda found: _veiled(found[0], names), words)


def _veiled(word: str, names: frozenset[str]) -> str:
    # As it is written in the file: "Not" may be a name, "not" is a word of ours.
    return "[...]" if word.strip(".-") in names else word
