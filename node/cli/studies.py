"""``echonode studies``, ``study``, ``retry``, ``hold``, ``release``, ``resend``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.catalog import known_study, open_catalog, running_nodes
from node.cli.options import JsonOption
from node.cli.output import (
    ExitCode,
    Problem,
    cell,
    plain,
    print_json,
    print_table,
    print_text,
    say,
    settings_of,
)
from node.cli.telling import tell_operated

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from node.settings import Settings
    from storage.catalog import RecordingRecord, StudyDetail

UidArgument = Annotated[
    str, typer.Argument(metavar="UID", help="A Study Instance UID, or the short key of the logs.")
]


def studies(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    text: Annotated[
        str | None, typer.Option(help="Part of a UID, an accession number or a description.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the studies, the newest first."""
    from node.watch import study_key
    from storage import catalog

    wanted = None if state is None else _state(state)
    with open_catalog(settings_of(context)) as database, database.read() as session:
        found = catalog.list_studies(session, wanted, limit, text)
    if as_json:
        print_json(
            [{**_without_id(study), "key": study_key(study.study_instance_uid)} for study in found]
        )
        return
    print_table(
        "Studies",
        ("key", "state", "revision", "images", "last image", "study", "reason"),
        [
            (
                study_key(study.study_instance_uid),
                study.state.value,
                study.revision,
                study.images,
                study.last_image_at,
                study.study_instance_uid,
                study.reason,
            )
            for study in found
        ],
        long=("study", "reason"),
    )


def study(context: typer.Context, uid: UidArgument, as_json: JsonOption = False) -> None:
    """Show a study: its timeline, clips, findings, results and deliveries."""
    settings = settings_of(context)
    with open_catalog(settings) as database, database.read() as session:
        shown = study_json(session, known_study(session, uid), settings)
    if as_json:
        print_json(shown)
    else:
        print_study(shown)


def retry(context: typer.Context, uid: UidArgument, as_json: JsonOption = False) -> None:
    """Try again what failed in a study."""
    from storage import catalog

    settings = settings_of(context)
    with open_catalog(settings) as database, database.write() as session:
        known = known_study(session, uid)
        catalog.retry(session, known)
        _done(session, known, as_json=as_json)
    tell_operated(settings, "retry", known)


def hold(
    context: typer.Context,
    uid: UidArgument,
    reason: Annotated[str, typer.Option(help="Why, for those who ask later.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Stop a study where it is, until it is released."""
    from storage import catalog

    settings = settings_of(context)
    with open_catalog(settings) as database, database.write() as session:
        known = known_study(session, uid)
        catalog.hold(session, known, reason)
        _done(session, known, as_json=as_json)
    tell_operated(settings, "hold", known)


def release(context: typer.Context, uid: UidArgument, as_json: JsonOption = False) -> None:
    """Let a held study go on."""
    from storage import catalog

    settings = settings_of(context)
    with open_catalog(settings) as database, database.write() as session:
        known = known_study(session, uid)
        catalog.release(session, known)
        _done(session, known, as_json=as_json)
    tell_operated(settings, "release", known)


def resend(
    context: typer.Context,
    uid: UidArgument,
    destination: Annotated[
        str | None, typer.Option("--to", help="A destination's name; otherwise each.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send a study's results again, the very same bytes."""
    from storage import catalog

    settings = settings_of(context)
    names = tuple(item.name for item in settings.destinations)
    with open_catalog(settings) as database, database.write() as session:
        known = known_study(session, uid)
        if destination is not None and destination not in names:
            raise Problem(
                f"no destination {destination!r} in the settings; there are: "
                f"{', '.join(names) or 'none'}",
                ExitCode.NOT_FOUND,
            )
        catalog.resend(session, known, destination, destinations=names)
        _done(session, known, as_json=as_json)
    tell_operated(settings, "resend", known)


def study_json(session: Session, uid: str, settings: Settings) -> dict[str, Any]:
    """All that is known of a study, as ``study --json`` prints it.

    Raises
    ------
    CatalogError
        If it is unknown.
    """
    from node.watch import study_key
    from storage import catalog
    from storage.files import open_store

    detail = catalog.study_detail(session, uid)
    files = open_store(settings.store_url, settings.data_dir)
    sops = {item.id: item.sop_instance_uid for item in detail.recordings}
    return {
        "study": {**_without_id(detail.study), "key": study_key(uid)},
        "clips": _clips(detail, settings),
        "results": [
            {
                **_without_id(result, "file_key", "recording_id"),
                "clip": sops.get(result.recording_id or 0),
                "path": files.source(result.file_key),
            }
            for result in detail.results
        ],
        "deliveries": [_without_id(item, "result_id") for item in detail.deliveries],
        "timeline": plain(detail.timeline),
    }


def print_study(shown: dict[str, Any]) -> None:
    """The same for a reader."""
    from node.cli.findings import print_clips

    study = shown["study"]
    print_text(f"Study {study['study_instance_uid']} (key {study['key']})")
    print_text(f"  state     {study['state']}, revision {study['revision']}: {study['reason']}")
    if study["next_step"]:
        print_text(f"  next step {study['next_step']}")
    print_table(
        "Timeline",
        ("at", "event", "what"),
        [(_time(event["at"]), event["kind"], event["message"]) for event in shown["timeline"]],
        long=("what",),
    )
    clips = [
        {**clip, "file": f"{'ECG' if clip['kind'] == 'ecg' else 'clip'} {n}"}
        for n, clip in enumerate(shown["clips"], start=1)
    ]
    print_table(
        "Clips",
        ("clip", "state", "frames", "SOP instance"),
        [
            (clip["file"], clip["state"], clip["frame_count"], clip["sop_instance_uid"])
            for clip in clips
        ],
        long=("SOP instance",),
    )
    print_clips(clips, title="Views")
    for clip in clips:
        for words in clip["troubles"]:
            print_text(f"{clip['file']}, not to be trusted: {words}")
    print_table(
        "Results",
        ("kind", "revision", "current", "path"),
        [
            (item["kind"], item["revision"], item["current"], item["path"])
            for item in shown["results"]
        ],
        long=("path",),
    )
    print_table(
        "Deliveries",
        ("kind", "to", "state", "promise", "tries", "last answer"),
        [
            (
                item["kind"],
                item["destination"],
                item["state"],
                _promise_words(item),
                item["attempts"],
                item["last_answer"],
            )
            for item in shown["deliveries"]
        ],
        long=("last answer",),
    )


def _promise_words(delivery: dict[str, Any]) -> str:
    """How it is known that a destination has what it got, or what is waited for."""
    if delivery["state"] == "sent":
        return "awaited"
    words = {"committed": "promised", "found": "shown by a query", "status": "by status alone"}
    return words.get(delivery["promise"] or "", "")


def _clips(detail: StudyDetail, settings: Settings) -> list[dict[str, Any]]:
    from node.cli.findings import finding_json
    from node.evidence import reportable
    from node.records import finding_from_row

    clips = []
    for recording in detail.recordings:
        findings, _withheld = reportable(
            tuple(finding_from_row(row) for row in recording.findings),
            allow_simulated=settings.analysis.allow_simulated_evidence,
            allow_demographics=settings.analysis.person_estimates,
        )
        clips.append(
            {
                "sop_instance_uid": recording.sop_instance_uid,
                "sop_class_uid": recording.sop_class_uid,
                "kind": recording.kind.value,
                "state": recording.state.value,
                "reason": recording.reason,
                "revision": recording.revision,
                "attempts": recording.attempts,
                "mode": recording.mode,
                "frame_count": recording.frame_count,
                "view": _view(recording),
                "troubles": list(recording.troubles),
                "findings": [finding_json(finding) for finding in findings],
                "not_given": [
                    {"output": refusal.output, "reason": refusal.reason, "pack": refusal.pack}
                    for refusal in recording.refusals
                ],
                "refused": recording.reason if recording.state.value == "refused" else None,
            }
        )
    return clips


def _view(recording: RecordingRecord) -> dict[str, Any] | None:
    if recording.view_label is None:
        return None
    return {
        "label": recording.view_label,
        "score": recording.view_score,
        "certain": recording.view_certain,
    }


def _done(session: Session, uid: str, *, as_json: bool) -> None:
    """Say what a change has made of a study."""
    from storage import catalog

    session.flush()
    study = catalog.find_study(session, uid)
    if not running_nodes(session):
        say("note: no node is running on this database; it takes this up when one starts")
    if as_json:
        print_json({"study": _without_id(study)})
    else:
        print_text(f"{uid}: {study.state.value}, {study.reason}")


def _state(text: str) -> Any:
    from storage.states import StudyState

    try:
        return StudyState(text)
    except ValueError:
        states = ", ".join(state.value for state in StudyState)
        raise Problem(f"no state {text!r}; there are: {states}", ExitCode.USAGE) from None


def _without_id(record: object, *others: str) -> dict[str, Any]:
    """A record as JSON without the numbers of rows, which mean nothing outside."""
    left_out = {"id", "study_id", *others}
    return {key: item for key, item in plain(record).items() if key not in left_out}


def _time(text: str) -> str:
    from datetime import datetime

    return cell(datetime.fromisoformat(text))
