"""The one rule of what may be said: no model speaks beyond its evidence."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from models.finding import Evidence, Finding
from models.packs import Pack, PackKind
from models.tasks import TASKS
from node.sections import AnalysisSettings


def reportable(
    findings: Iterable[Finding],
    *,
    allow_simulated: bool,
    allow_demographics: Collection[str] = (),
) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """Which findings may stand in a report: (those that may, those that may not).

    Outputs tested on patients may. Outputs that have only seen the simulator may where the
    operator allows it. Age, sex, weight and height may only where the operator names them: a
    report that guesses them could be taken for the patient's own data.
    """
    every = tuple(findings)
    reported = tuple(
        finding
        for finding in every
        if why_withheld(
            finding.output,
            finding.evidence,
            allow_simulated=allow_simulated,
            allow_demographics=allow_demographics,
        )
        is None
    )
    return reported, tuple(finding for finding in every if finding not in reported)


def worth_running(
    packs: Iterable[Pack],
    *,
    allow_simulated: bool,
    allow_demographics: Collection[str] = (),
) -> tuple[Pack, ...]:
    """The packs that name views, and those of which some output may stand in a report."""
    return tuple(
        pack
        for pack in packs
        if pack.manifest.kind is PackKind.VIEW
        or any(
            why_withheld(
                output.name,
                output.evidence,
                allow_simulated=allow_simulated,
                allow_demographics=allow_demographics,
            )
            is None
            for output in pack.manifest.outputs
        )
    )


def running_packs(settings: AnalysisSettings, packs: Iterable[Pack]) -> tuple[Pack, ...]:
    """The packs that a node with these settings runs."""
    return worth_running(
        packs,
        allow_simulated=settings.allow_simulated_evidence,
        allow_demographics=settings.person_estimates,
    )


def cautions(findings: Iterable[Finding], packs: Iterable[Pack]) -> tuple[str, ...]:
    """What a reader must know beside these values: what was not shown of their outputs."""
    doubted = {
        (pack.ref, output.name): output.caution
        for pack in packs
        for output in pack.manifest.outputs
        if output.caution
    }
    return tuple(
        f"Mind: {TASKS[finding.output].title} by {finding.pack.name} was "
        f"{doubted[finding.pack, finding.output]}."
        for finding in findings
        if (finding.pack, finding.output) in doubted
    )


def may_speak(output: str, evidence: Evidence, allow_simulated: bool) -> bool:
    """Whether an output with this evidence may stand in a report."""
    return why_withheld(output, evidence, allow_simulated=allow_simulated) is None


def why_withheld(
    output: str,
    evidence: Evidence,
    *,
    allow_simulated: bool,
    allow_demographics: Collection[str] = (),
) -> str | None:
    """Why an output with this evidence may not stand in a report; None where it may.

    ``allow_demographics`` names the estimates of the person that the operator has asked for.
    """
    if evidence is not Evidence.PATIENTS and not allow_simulated:
        return "tested on simulations only, and such outputs are switched off"
    task = TASKS.get(output)
    if task is not None and task.demographic and output not in allow_demographics:
        return "estimates of the person are switched off"
    return None
