"""Which clips are analysed, by which packs, where results go, and what comes first.

Rules are read from the top. For each action the first rule that fits and names it decides; where
none does, everything is as without rules. A rule narrows and never widens: what is not for a model
stays so whatever a rule says.

All here is pure: rules and facts in, a decision with its reasons out. It is made at three moments:
when an object arrives (urgency), when a clip is taken for a worker and when its view was named
(whether it is analysed, and by what), and when a study's results are queued (where they go).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Protocol

from node.sections import Rule
from storage.states import RecordingKind

if TYPE_CHECKING:
    from models.packs import Pack

#: Conditions that the object's header tells of, each with the attribute.
HEADER_CONDITIONS = {
    "modality": "Modality",
    "description": "StudyDescription",
    "series_description": "SeriesDescription",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
}
_TEXTS = ("calling_ae", "called_ae", "door", *HEADER_CONDITIONS)
_ANY_CASE = frozenset({"description", "series_description", "manufacturer", "model"})
_OF_VIEW = ("view", "score_at_least", "score_below")
_MOST_TEXT = 1024  # characters of an attribute that are looked at


class Header(Protocol):
    """Attributes by keyword: a data set, or as much of one as is asked for."""

    def get(self, keyword: str, /) -> Any:
        """The value of an attribute, or None."""


class Action(StrEnum):
    """What a rule can decide."""

    ANALYSE = "analyse"
    PACKS = "packs"
    DESTINATIONS = "destinations"
    URGENCY = "urgency"


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What rules ask of an object. ``view`` and ``score`` are None while nobody has named them.

    What has no views, by its ``kind``, fits no rule that asks for one.
    """

    calling_ae: str = ""
    called_ae: str = ""
    door: str = ""
    modality: str = ""
    description: str = ""
    series_description: str = ""
    manufacturer: str = ""
    model: str = ""
    view: str | None = None
    score: float | None = None
    kind: RecordingKind = RecordingKind.ULTRASOUND


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether a rule fits; None: that hangs on a view or score which is not named yet.

    ``why`` is the first condition that does not fit, or cannot be answered.
    """

    rule: str
    fits: bool | None
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What was decided of an action, by which rule, and why those above it were passed over.

    Without a rule everything is as without rules. ``undecided`` is the first rule that could
    decide when the view is named.
    """

    action: Action
    rule: Rule | None = None
    undecided: str | None = None
    passed: tuple[Verdict, ...] = ()

    @property
    def value(self) -> Any:
        """What the rule says; None where none decided."""
        return None if self.rule is None else getattr(self.rule, self.action)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ruling:
    """What rules make of a clip: why it is not analysed, or the packs that alone read it.

    ``packs`` None: all. ``words`` say by which rule there are fewer.
    """

    skip: str | None = None
    packs: tuple[str, ...] | None = None
    words: str = ""


def facts_of(
    header: Header | None,
    *,
    calling_ae: str = "",
    called_ae: str = "",
    door: str = "",
    view: str | None = None,
    score: float | None = None,
    kind: RecordingKind = RecordingKind.ULTRASOUND,
) -> Facts:
    """The facts of an object, with what its header says."""
    said = {
        name: _text(header, keyword) if header is not None else ""
        for name, keyword in HEADER_CONDITIONS.items()
    }
    return Facts(
        calling_ae=calling_ae,
        called_ae=called_ae,
        door=door,
        view=view,
        score=score,
        kind=kind,
        **said,
    )


def judge(rule: Rule, facts: Facts) -> Verdict:
    """Whether a rule fits."""
    for name in _TEXTS:
        wanted, value = getattr(rule, name), getattr(facts, name)
        if wanted is not None and not any(_matches(name, value, item) for item in wanted):
            return Verdict(rule=rule.name, fits=False, why=_other(name, value, wanted))
    if not facts.kind.has_views and any(getattr(rule, name) is not None for name in _OF_VIEW):
        return Verdict(rule=rule.name, fits=False, why="it is no clip, and has no view")
    if rule.view is not None:
        if facts.view is None:
            return Verdict(rule=rule.name, fits=None, why="the view is not named yet")
        if facts.view not in rule.view:
            return Verdict(rule=rule.name, fits=False, why=_other("view", facts.view, rule.view))
    low, high = rule.score_at_least, rule.score_below
    if low is None and high is None:
        return Verdict(rule=rule.name, fits=True)
    if facts.score is None:
        return Verdict(rule=rule.name, fits=None, why="the score is not known yet")
    if low is not None and facts.score < low:
        why = f"the score is {facts.score:.3f}, not at least {low:g}"
        return Verdict(rule=rule.name, fits=False, why=why)
    if high is not None and facts.score >= high:
        why = f"the score is {facts.score:.3f}, not below {high:g}"
        return Verdict(rule=rule.name, fits=False, why=why)
    return Verdict(rule=rule.name, fits=True)


def decide(rules: Iterable[Rule], facts: Facts, action: Action) -> Decision:
    """What rules say of an action: the first that fits and names it decides."""
    passed: list[Verdict] = []
    for rule in rules:
        if getattr(rule, action) is None:
            continue
        verdict = judge(rule, facts)
        if verdict.fits:
            return Decision(action=action, rule=rule, passed=tuple(passed))
        if verdict.fits is None:
            return Decision(action=action, undecided=rule.name, passed=tuple(passed))
        passed.append(verdict)
    return Decision(action=action, passed=tuple(passed))


def rule_on_urgency(rules: Sequence[Rule], facts: Facts) -> tuple[int, str]:
    """How urgent an object makes its study, and by which rule, in words."""
    decision = decide(rules, facts, Action.URGENCY)
    if decision.rule is None:
        return 0, ""
    return decision.value, f"{by(decision.rule)}: urgency {decision.value}"


def rule_on_clip(rules: Sequence[Rule], facts: Facts, running: Sequence[str]) -> Ruling:
    """What becomes of a recording that could be analysed by the packs in ``running``.

    Also of one whose view is not named: what hangs on that is left open, and is no skip.
    """
    analyse = decide(rules, facts, Action.ANALYSE)
    if analyse.rule is not None and not analyse.value:
        return Ruling(skip=f"{by(analyse.rule)}: not analysed")
    packs = decide(rules, facts, Action.PACKS)
    if packs.rule is None:
        return Ruling()
    chosen = tuple(name for name in running if name in packs.value)
    if not chosen:
        named = ", ".join(packs.value)
        ecg = facts.kind is RecordingKind.ECG
        why = "is no pack in use here that reads ECGs" if ecg else "is not in use here"
        return Ruling(skip=f"{by(packs.rule)}: not analysed, since {named} {why}")
    return Ruling(packs=chosen, words=f"{by(packs.rule)}: {', '.join(chosen)} alone")


def rule_on_results(rules: Sequence[Rule], facts: Facts) -> tuple[tuple[str, ...] | None, str]:
    """Which destinations get a study's results, None for all; and by which rule, in words."""
    decision = decide(rules, facts, Action.DESTINATIONS)
    if decision.rule is None:
        return None, ""
    return tuple(decision.value), by(decision.rule)


def by(rule: Rule) -> str:
    """A rule as reasons and timelines name it."""
    return f"rule '{rule.name}'"


def ruled_out(reason: str) -> bool:
    """Whether the reason of a recording is a rule's."""
    return reason.startswith("rule '")


def asks_header(rules: Iterable[Rule]) -> bool:
    """Whether any rule asks for what stands in the object alone."""
    return any(getattr(rule, name) is not None for rule in rules for name in HEADER_CONDITIONS)


def conditions(rule: Rule) -> dict[str, Any]:
    """The conditions that a rule names."""
    named = {name: getattr(rule, name) for name in (*_TEXTS, *_OF_VIEW)}
    return {name: value for name, value in named.items() if value is not None}


def actions(rule: Rule) -> dict[str, Any]:
    """The actions that a rule names."""
    named = {action.value: getattr(rule, action) for action in Action}
    return {name: value for name, value in named.items() if value is not None}


def never_decide(rules: Sequence[Rule]) -> tuple[str, ...]:
    """A line for each rule that, or of which some action, can never decide anything."""
    lines = []
    for place, rule in enumerate(rules):
        hidden: dict[str, str] = {}
        for action in actions(rule):
            above = (one for one in rules[:place] if getattr(one, action) is not None)
            cover = next((one.name for one in above if _covers(one, rule)), None)
            if cover is not None:
                hidden[action] = cover
        if hidden:
            whole = len(hidden) == len(actions(rule))
            what = "" if whole else f" {' or '.join(hidden)}"
            before = " and ".join(repr(name) for name in dict.fromkeys(hidden.values()))
            lines.append(
                f"rules: {rule.name!r} never decides{what or ' anything'}: {before} above it fits "
                "wherever it would"
            )
        elif rule.view is not None and "a4c" not in rule.view:
            lines.append(
                f"rules: {rule.name!r} never decides anything: no model for measurements reads "
                f"{' or '.join(rule.view)} clips"
            )
    return tuple(lines)


def unknown_packs(rules: Iterable[Rule], packs: Iterable[Pack]) -> tuple[str, ...]:
    """A line for each rule that names a pack which is not there, or which only names views."""
    kinds = {pack.manifest.name: pack.manifest.kind.value for pack in packs}
    reading = sorted(name for name, kind in kinds.items() if kind != "view")
    lines = []
    for rule in rules:
        for name in rule.packs or ():
            if name in reading:
                continue
            what = "names views and always runs" if name in kinds else "is not there"
            lines.append(
                f"rules: {rule.name!r} names the pack {name!r}, which {what}; "
                f"there are {', '.join(reading) or 'none'}"
            )
    return tuple(lines)


def idle_packs(
    rules: Iterable[Rule], packs: Iterable[Pack], running: Iterable[Pack]
) -> tuple[str, ...]:
    """A line for each pack of a rule of which nothing may be reported: it does not run."""
    there = {pack.manifest.name for pack in packs}
    used = {pack.manifest.name for pack in running}
    return tuple(
        f"rules: {rule.name!r} names the pack {name!r}, of which nothing may be reported: see "
        "[analysis] allow_simulated_evidence and person_estimates"
        for rule in rules
        for name in rule.packs or ()
        if name in there - used
    )


def reading_packs(packs: Iterable[Pack], kind: RecordingKind) -> tuple[str, ...]:
    """The names of the packs that measure in such recordings: those that rules choose from."""
    of_kind = {
        RecordingKind.ULTRASOUND: ("tracing", "regression"),
        RecordingKind.ECG: ("waveform",),
    }[kind]
    names = (pack.manifest.name for pack in packs if pack.manifest.kind.value in of_kind)
    return tuple(dict.fromkeys(names))


def _text(header: Header, keyword: str) -> str:
    value = header.get(keyword)
    if value is None:
        return ""
    return "".join(filter(str.isprintable, str(value)[:_MOST_TEXT])).strip()


def _matches(name: str, value: str, pattern: str) -> bool:
    if name in _ANY_CASE:
        value, pattern = value.casefold(), pattern.casefold()
    return fnmatchcase(value, pattern)


def _other(name: str, value: str, wanted: Collection[str]) -> str:
    is_what = repr(value) if value else "empty"
    return f"{name} is {is_what}, not {' or '.join(map(repr, wanted))}"


def _covers(above: Rule, rule: Rule) -> bool:
    """Whether a rule surely fits wherever another does."""
    return all(_narrower(name, getattr(rule, name), value) for name, value in _named(above))


def _named(rule: Rule) -> Iterator[tuple[str, Any]]:
    yield from conditions(rule).items()


def _narrower(name: str, inner: Any, outer: Any) -> bool:
    """Whether a condition lets through nothing that another one of its name stops."""
    if inner is None:
        return name in _TEXTS and "*" in outer
    if name == "score_at_least":
        return bool(inner >= outer)
    if name == "score_below":
        return bool(inner <= outer)
    return all(any(_within(name, item, whole) for whole in outer) for item in inner)


def _within(name: str, pattern: str, whole: str) -> bool:
    """Whether a pattern surely matches nothing but what another one matches."""
    if name in _ANY_CASE:
        pattern, whole = pattern.casefold(), whole.casefold()
    if pattern == whole or whole == "*":
        return True
    return not any(mark in pattern for mark in "*?[") and fnmatchcase(pattern, whole)
