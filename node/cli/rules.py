"""``echonode rules``: which rules there are, and what they make of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.options import JsonOption
from node.cli.output import (
    ExitCode,
    Problem,
    print_json,
    print_table,
    print_text,
    settings_of,
    stdout_kept,
)

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from node.analysis import ClipView
    from node.rules import Decision, Facts, Verdict
    from node.settings import Settings
    from storage.states import RecordingKind

commands = typer.Typer(help="The routing rules.", invoke_without_command=True)


@dataclass(frozen=True, kw_only=True)
class _Tried:
    """What rules make of a file. ``clip`` says in words what would come of it."""

    file: str
    facts: Facts
    verdicts: tuple[Verdict, ...]
    decisions: Mapping[str, Decision]
    clip: str


@commands.callback()
def rules(context: typer.Context, as_json: JsonOption = False) -> None:
    """The routing rules; alone, this lists them."""
    if context.invoked_subcommand is None:
        _list(context, as_json=as_json)


@commands.command("list")
def list_rules(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the rules in their order, with what they ask and do."""
    _list(context, as_json=as_json)


@commands.command("test")
def try_rules(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="DICOM files.")],
    calling_ae: Annotated[
        str, typer.Option(metavar="AE", help="As if this AE title had sent it.")
    ] = "",
    called_ae: Annotated[
        str | None,
        typer.Option(metavar="AE", help="As if it had called us so; by default our own AE title."),
    ] = None,
    door: Annotated[
        str, typer.Option(help="As if it had come so: dimse, dicomweb, folder or fetch.")
    ] = "dimse",
    view: Annotated[
        str | None, typer.Option(metavar="VIEW", help="As if this were its view, such as a4c.")
    ] = None,
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="As if this were its view's score.")
    ] = None,
    name_view: Annotated[
        bool, typer.Option("--name-view", help="Have the view pack name view and score.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Explain what the rules make of files: facts, each rule, the decision. Nothing is kept."""
    from models.views import View

    if name_view and (view is not None or score is not None):
        raise Problem("--name-view names view and score: leave out the others", ExitCode.USAGE)
    if view is not None and view not in set(View):
        raise Problem(f"--view {view!r}: views are {', '.join(View)}", ExitCode.USAGE)
    if door not in ("dimse", "dicomweb", "folder", "fetch"):
        raise Problem(f"--door {door!r}: dimse, dicomweb, folder or fetch", ExitCode.USAGE)
    settings = settings_of(context)
    headers = _headers(files)
    running = _running(context, settings)
    seen = _views(context, headers, settings) if name_view else {}
    named = (view, score)
    over_network = door == "dimse"
    tried = [
        _try(
            path,
            header,
            settings,
            sender={
                "calling_ae": calling_ae,
                "called_ae": (called_ae or settings.dimse.ae_title) if over_network else "",
                "door": door,
            },
            named=named,
            seen=seen.get(path),
            running=running,
        )
        for path, header in headers.items()
        if not isinstance(header, str)
    ]
    problems = {str(path): header for path, header in headers.items() if isinstance(header, str)}
    if as_json:
        print_json({"files": [_json(one, settings) for one in tried], "problems": problems})
    else:
        for one in tried:
            _print(one, settings)
    if problems:
        raise Problem("; ".join(f"{file}: {reason}" for file, reason in problems.items()))


def _headers(files: Sequence[Path]) -> dict[Path, Dataset | str]:
    """The header of each file, or why it has none that rules are asked about."""
    from models.clip import ClipError, read_header
    from node.results import is_own_object

    headers: dict[Path, Dataset | str] = {}
    for path in files:
        if not path.exists():
            raise Problem(f"{path}: no such file", ExitCode.NOT_FOUND)
        try:
            header = read_header(path)
        except ClipError as error:
            headers[path] = str(error)
        except OSError as error:
            headers[path] = f"cannot be read: {error.strerror}"
        else:
            own = is_own_object(header)
            headers[path] = "echonode made it: no rule is asked about it" if own else header
    return headers


def _running(context: typer.Context, settings: Settings) -> dict[RecordingKind, tuple[str, ...]]:
    """The packs of which rules choose; not looked for where no rule does."""
    from node.cli.packs import load_packs
    from node.evidence import running_packs
    from node.rules import reading_packs
    from storage.states import RecordingKind

    if not any(rule.packs for rule in settings.rules):
        return dict.fromkeys(RecordingKind, ())
    packs = running_packs(settings.analysis, load_packs(context))
    return {kind: reading_packs(packs, kind) for kind in RecordingKind}


def _views(
    context: typer.Context, headers: Mapping[Path, Dataset | str], settings: Settings
) -> dict[Path, ClipView]:
    """What the view pack says of clips, in a process of its own."""
    from models.packs import PackKind
    from node.analysis import name_view
    from node.cli.packs import load_packs
    from node.executor import WorkerError, WorkerProcesses
    from node.sections import LogSettings
    from node.workers import prepare_worker

    packs = [pack for pack in load_packs(context) if pack.manifest.kind is PackKind.VIEW]
    clips = [path for path, header in headers.items() if _is_clip(header)]
    if not clips:
        return {}
    quiet = LogSettings(level="error", format="console")
    executor = WorkerProcesses(
        1,
        initializer=prepare_worker,
        initargs=([str(pack.folder) for pack in packs], 1, quiet, settings.prepared_networks),
        time_limit_s=settings.analysis.time_limit_s,
    )
    try:
        with stdout_kept(), executor:
            futures = {path: executor.submit(name_view, str(path)) for path in clips}
            return {path: future.result() for path, future in futures.items()}
    except WorkerError as error:
        raise Problem(str(error)) from error


def _is_clip(header: Dataset | str) -> bool:
    from storage.states import RecordingKind

    return not isinstance(header, str) and _kind(header) is RecordingKind.ULTRASOUND


def _kind(header: Dataset) -> RecordingKind | None:
    from node.intake import recording_kind

    return recording_kind(header)


def _try(
    path: Path,
    header: Dataset,
    settings: Settings,
    *,
    sender: Mapping[str, str],
    named: tuple[str | None, float | None],
    seen: ClipView | None,
    running: Mapping[RecordingKind, Sequence[str]],
) -> _Tried:
    from dataclasses import replace

    from node.rules import Action, decide, facts_of, judge, rule_on_clip
    from storage.states import RecordingKind

    kind = _kind(header) or RecordingKind.ULTRASOUND

    view, score = named
    if seen is not None and seen.view is not None:
        view, score = seen.view.view.value, seen.view.score
    facts = facts_of(header, view=view, score=score, kind=kind, **sender)
    early = rule_on_clip(settings.rules, replace(facts, view=None, score=None), running[kind])
    late = rule_on_clip(settings.rules, facts, running[kind])
    unread = early.skip or _no_model(header, view, seen) or late.skip
    every = "all packs" if kind.has_views else "all packs that read ECGs"
    by_which = every if late.packs is None else ", ".join(late.packs)
    hangs = view is None and kind.has_views
    return _Tried(
        file=str(path),
        facts=facts,
        verdicts=tuple(judge(rule, facts) for rule in settings.rules),
        decisions={action.value: decide(settings.rules, facts, action) for action in Action},
        clip=unread or ("hangs on its view" if hangs else f"read by {by_which}"),
    )


def _no_model(header: Dataset, view: str | None, seen: ClipView | None) -> str | None:
    from models.views import View, ViewCall
    from node.analysis import ClipView, reason_to_skip

    kind = _kind(header)
    if kind is None:
        return "no model reads objects of this kind"
    if not kind.has_views:
        return None
    if seen is None and view is not None:
        frames = int(header.get("NumberOfFrames") or 1)
        call = ViewCall(view=View(view), score=1.0, certain=True)
        seen = ClipView(view=call, refused=None, frame_count=frames)
    if seen is None:
        return None
    return seen.refused or reason_to_skip(seen)


def _value(decision: Decision, tried: _Tried, settings: Settings) -> Any:
    """What holds, also where no rule decided; None where that hangs on the view."""
    from node.intake import LATER

    if decision.undecided is not None:
        return None
    if decision.rule is not None:
        return decision.value
    names = [destination.name for destination in settings.destinations]
    urgency = LATER if tried.facts.door == "fetch" else 0
    return {"analyse": True, "packs": None, "destinations": names, "urgency": urgency}[
        decision.action
    ]


def _json(tried: _Tried, settings: Settings) -> dict[str, Any]:
    return {
        "file": tried.file,
        "facts": tried.facts,
        "rules": tried.verdicts,
        "decisions": {
            action: {
                "value": _value(decision, tried, settings),
                "rule": None if decision.rule is None else decision.rule.name,
                "hangs_on_view_for": decision.undecided,
            }
            for action, decision in tried.decisions.items()
        },
        "clip": tried.clip,
    }


def _print(tried: _Tried, settings: Settings) -> None:
    from dataclasses import fields

    print_text(tried.file)
    for field in fields(tried.facts):
        value = getattr(tried.facts, field.name)
        shown = f"{value:.3f}" if isinstance(value, float) else value
        print_text(f"  {field.name:19}{shown if shown not in (None, '') else '-'}")
    if not settings.rules:
        print_text("  there are no rules")
    for place, verdict in enumerate(tried.verdicts, start=1):
        how = {True: "fits", False: "does not fit", None: "cannot be told"}[verdict.fits]
        why = f": {verdict.why}" if verdict.why else ""
        print_text(f"  rule {place} '{verdict.rule}' {how}{why}")
    for action, decision in tried.decisions.items():
        print_text(f"  -> {action:17}{_words(decision, tried, settings)}")
    print_text(f"  => {tried.clip}")


def _words(decision: Decision, tried: _Tried, settings: Settings) -> str:
    if decision.undecided is not None:
        return f"hangs on the view, for rule '{decision.undecided}': see --view and --name-view"
    value = _value(decision, tried, settings)
    who = "no rule" if decision.rule is None else f"rule '{decision.rule.name}'"
    if isinstance(value, bool):
        shown = "yes" if value else "no"
    elif value is None:
        shown = "all"
    elif isinstance(value, int):
        shown = str(value)
    else:
        shown = ", ".join(value) or "none"
    return f"{shown} ({who})"


def _list(context: typer.Context, *, as_json: bool) -> None:
    from node.rules import actions, conditions, never_decide

    settings = settings_of(context)
    if as_json:
        print_json(
            {
                "rules": [
                    {"name": rule.name, "when": conditions(rule), "then": actions(rule)}
                    for rule in settings.rules
                ],
                "cautions": never_decide(settings.rules),
            }
        )
        return
    print_table(
        "Rules",
        ("", "name", "when", "then"),
        [
            (place, rule.name, _pairs(conditions(rule)) or "always", _pairs(actions(rule)))
            for place, rule in enumerate(settings.rules, start=1)
        ],
        long=("when", "then"),
    )
    for line in never_decide(settings.rules):
        print_text(f"note: {line}")


def _pairs(named: Mapping[str, Any]) -> str:
    return "; ".join(f"{name} {_plain(value)}" for name, value in named.items())


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " or ".join(map(str, value)) or "none"
    return str(value)
