"""What stands in the measurement groups of every report (TID 1501), and the words beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from models.finding import Evidence, Finding, Kind, Method, PackRef, Refusal
from models.tasks import TASKS
from node.results import codes, content
from node.results.codes import OUTPUTS, UNITS, Concept, Subject
from node.results.content import (
    HAS_CONCEPT_MOD,
    HAS_OBS_CONTEXT,
    HAS_PROPERTIES,
    Item,
)
from node.results.evidence import TestedOn, evidence_words, outside_words
from node.results.objects import (
    MANUFACTURER,
    MODEL_NAME,
    ObjectRef,
    ReportSettings,
    ResultError,
)

MAX_MEASUREMENTS = 5  # OHIF 3.13 shows so many lines of a group and no more


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What one group holds: what a pack says of one subject; ``number`` counts from 0 on."""

    pack: PackRef
    subject: Subject
    number: int
    findings: tuple[Finding, ...]


def parts_of(findings: Sequence[Finding]) -> Iterator[Part]:
    """Findings by pack, by subject, at most five together, in the order of the outputs."""
    for pack in dict.fromkeys(finding.pack for finding in findings):
        for subject in dict.fromkeys(output.subject for output in OUTPUTS.values()):
            of_subject = [
                finding
                for output, of_output in OUTPUTS.items()
                for finding in findings
                if finding.output == output
                and finding.pack == pack
                and of_output.subject == subject
            ]
            for number, start in enumerate(range(0, len(of_subject), MAX_MEASUREMENTS)):
                yield Part(
                    pack=pack,
                    subject=subject,
                    number=number,
                    findings=tuple(of_subject[start : start + MAX_MEASUREMENTS]),
                )


def observer_items(settings: ReportSettings) -> list[Item]:
    """TID 1002 and TID 1004: a device observed."""
    return [
        content.code(codes.OBSERVER_TYPE, codes.DEVICE, HAS_OBS_CONTEXT),
        content.uid(codes.DEVICE_UID, settings.device_uid, HAS_OBS_CONTEXT),
        content.text(codes.DEVICE_NAME, MODEL_NAME, HAS_OBS_CONTEXT),
        content.text(codes.DEVICE_MANUFACTURER, MANUFACTURER, HAS_OBS_CONTEXT),
        content.text(codes.DEVICE_MODEL, MODEL_NAME, HAS_OBS_CONTEXT),
        content.text(codes.DEVICE_SERIAL, settings.device_serial, HAS_OBS_CONTEXT),
    ]


def group_head(
    tracking: str, tracking_uid: str, subject: Subject, pack: PackRef, findings: Sequence[Finding]
) -> list[Item]:
    """What a group is, what it is about, and who speaks."""
    return [
        content.text(codes.TRACKING_IDENTIFIER, tracking, HAS_OBS_CONTEXT),
        content.uid(codes.TRACKING_UID, tracking_uid, HAS_OBS_CONTEXT),
        content.code(codes.FINDING, subject.finding),
        content.code(codes.FINDING_SITE, subject.site, HAS_CONCEPT_MOD),
        *algorithm(pack, findings),
    ]


def explanation(capture: ObjectRef, frame: int | None = None) -> Item:
    """TID 1501 row 9d: the picture that shows what moved the values; ``frame`` counts from 1."""
    return content.image(
        codes.VISUAL_EXPLANATION,
        capture.sop_class_uid,
        capture.sop_instance_uid,
        content.CONTAINS,
        frame=frame,
    )


def algorithm(pack: PackRef, findings: Iterable[Finding]) -> list[Item]:
    """TID 4019: which pack, with which weights, and where it draws the line."""
    parameters = [f"weights_sha256={pack.weights_sha256}"]
    parameters += [
        f"decision_threshold.{finding.output}={finding.threshold:.6g}"
        for finding in findings
        if finding.threshold is not None
    ]
    return [
        content.code(codes.ALGORITHM_FAMILY, codes.ARTIFICIAL_INTELLIGENCE, HAS_CONCEPT_MOD),
        content.text(codes.ALGORITHM_NAME, pack.name, HAS_CONCEPT_MOD),
        content.text(codes.ALGORITHM_VERSION, pack.version, HAS_CONCEPT_MOD),
        content.text(codes.ALGORITHM_MANUFACTURER, MANUFACTURER, HAS_CONCEPT_MOD),
        *(content.text(codes.ALGORITHM_PARAMETERS, each, HAS_CONCEPT_MOD) for each in parameters),
    ]


def measurement(finding: Finding, inferred_from: Iterable[Item] = ()) -> Item:
    """TID 300: a number, how it came about, its interval, and what it was inferred from."""
    output = OUTPUTS[finding.output]
    name = output.name_of(finding.method, finding.evidence)
    if finding.kind is Kind.SCORE:
        return content.number(
            name, main_number(finding), codes.SCORE, output.decimals, inferred_from
        )
    derivation = codes.MEAN if len(finding.per_beat) > 1 else codes.ESTIMATED
    return content.number(
        name,
        main_number(finding),
        UNITS[finding.unit],
        output.decimals,
        [
            *method_items(finding.method),
            content.code(codes.DERIVATION, derivation, HAS_CONCEPT_MOD),
            *bounds(finding.output, finding.low, finding.high, finding.unit),
            *inferred_from,
        ],
    )


def method_items(method: Method) -> list[Item]:
    """The method of measuring, where it has a code."""
    if method not in codes.METHODS:
        return []
    return [content.code(codes.MEASUREMENT_METHOD, codes.METHODS[method], HAS_CONCEPT_MOD)]


def bounds(output: str, low: float | None, high: float | None, unit: str) -> list[Item]:
    """The interval as numbers below the value, in the value's own unit."""
    return [
        content.number(
            name, bound, UNITS[unit], OUTPUTS[output].decimals, relationship=HAS_PROPERTIES
        )
        for name, bound in ((codes.INTERVAL_LOW, low), (codes.INTERVAL_HIGH, high))
        if bound is not None
    ]


def interval(output: str, low: float, high: float, unit: str, evidence: Evidence) -> Item:
    """The interval as words, since many viewers do not show what stands below a number."""
    decimals = OUTPUTS[output].decimals
    return content.text(
        codes.INTERVAL,
        f"{title_of(output, evidence)}: {low:.{decimals}f} to {high:.{decimals}f} {unit}",
    )


def intervals(findings: Iterable[Finding]) -> list[Item]:
    """The intervals in words of those that have one."""
    return [
        interval(finding.output, finding.low, finding.high, finding.unit, finding.evidence)
        for finding in findings
        if finding.low is not None and finding.high is not None
    ]


def verdict(finding: Finding) -> Concept | None:
    """Present, absent or, where the network looked outside the sector, neither of them.

    None for what is no qualitative finding.
    """
    if OUTPUTS[finding.output].qualitative is None:
        return None
    if finding.score is None or finding.threshold is None:
        return None
    if finding.looked_outside:
        return codes.INDETERMINATE
    return codes.PRESENT if finding.score >= finding.threshold else codes.ABSENT


def evaluations(findings: Iterable[Finding]) -> list[Item]:
    """A score against its threshold, as a qualitative finding with its severity."""
    items = []
    for finding in findings:
        output = OUTPUTS[finding.output]
        concept = output.finding_of(finding.evidence)
        value = verdict(finding)
        if concept is None or value is None:
            continue
        below = []
        if output.severity is not None:
            below.append(content.code(codes.SEVERITY, output.severity, HAS_CONCEPT_MOD))
        items.append(content.with_children(content.code(concept, value), below))
    return items


def title_of(output: str, evidence: Evidence) -> str:
    """What an output is called in a line of words, on this evidence."""
    mark = "" if evidence is Evidence.PATIENTS else "SIMULATED ONLY: "
    return f"{mark}{TASKS[output].title}"


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 clip", "2 clips"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def group_words(
    findings: Sequence[Finding],
    tested_on: TestedOn,
    *,
    beats: bool = True,
    seen: str = "clips",
    not_done: str = "traced",
) -> str:
    """What must stand beside the numbers of a group.

    ``seen`` are what a simulator shows to a network, ``not_done`` what a network did not do that
    gave a number outright.
    """
    words = evidence_words(findings, tested_on, seen=seen)
    warning = outside_words(findings)
    if warning:
        words += f" {warning}"
    if any(finding.method is Method.REGRESSION for finding in findings):
        words += f" Numbers were given directly by a network; nothing was {not_done}."
    without = [
        output_title(finding.output)
        for finding in findings
        if finding.kind is Kind.MEASUREMENT and (finding.low is None or finding.high is None)
    ]
    if without:
        words += f" No interval is known of: {', '.join(without)}."
    for finding in findings if beats else ():
        if len(finding.per_beat) > 1:
            each = ", ".join(_rounded(finding, value) for value in finding.per_beat)
            words += (
                f" {output_title(finding.output)}: mean of {len(finding.per_beat)} beats "
                f"({each} {finding.unit})."
            )
    return words


def pack_words(pack: PackRef) -> str:
    """A pack as readers know it."""
    return f"{pack.name} {pack.version}"


def output_title(output: str) -> str:
    """What an output is called, also one that is not known here."""
    return TASKS[output].title if output in TASKS else output


def _rounded(finding: Finding, value: float) -> str:
    return f"{value:.{OUTPUTS[finding.output].decimals}f}"


def main_number(finding: Finding) -> float:
    """The value, or the score of what has none."""
    number = finding.score if finding.kind is Kind.SCORE else finding.value
    if number is None:  # held by check_finding
        raise ResultError(f"finding {finding.output!r}: a {finding.kind} without its number")
    return number


def refusal_lines(refusals: Sequence[Refusal]) -> Iterator[str]:
    """What was not given, a reason once for all that it kept back."""
    titles: dict[tuple[PackRef, str], list[str]] = {}
    for refusal in refusals:
        titles.setdefault((refusal.pack, refusal.reason), []).append(output_title(refusal.output))
    for (pack, reason), names in titles.items():
        yield f"{', '.join(names)} by {pack_words(pack)}: {reason}"
