"""``echonode explain FILE``: where in the picture, or in the ECG, a value came from.

``--check`` asks whether such maps can be trusted: :mod:`models.explain.battery`. ECGs and their
packs go through :mod:`node.cli.explain_ecg`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli import explain_ecg
from node.cli.options import JsonOption
from node.cli.output import ExitCode, Problem, print_json, print_table, print_text, say, settings_of
from node.cli.packs import load_packs

if TYPE_CHECKING:
    from models.clip import Clip
    from models.ecg.explain.battery import WaveformReport
    from models.explain.battery import QualityReport
    from models.explain.clips import ExplainedOutput, Read
    from models.explain.methods import MapMethod
    from models.packs import Pack

_METHODS = "smoothgrad, gradient, integrated-gradients, grad-cam or occlusion"
_USUAL = "smoothgrad"
_VIEW = "view"
_CHECKED_ON = "simulated:clips=20,frames=3"  # one frame of a clip is asked, and three show motion
_VIEWS_CHECKED_ON = f"{_CHECKED_ON},views=a4c+a2c+a3c+a5c+psla+saxmid+saxbasal+sub4c+rvinflow+ivc"


def explain(
    context: typer.Context,
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="A DICOM file, or an ECG (DICOM, WFDB, CSV); with --check a pack's name.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(help="An output, 'view' or a view's label; without it all that may speak."),
    ] = None,
    pack: Annotated[str | None, typer.Option(help="The pack that is asked; else all.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help=f"How: {_METHODS}; without it {_USUAL}. For ECGs {explain_ecg.METHODS}; without "
            f"it {explain_ecg.USUAL}."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write the pictures.")] = Path(
        "echonode-explanations"
    ),
    dicom: Annotated[
        bool,
        typer.Option("--dicom", help="Write a DICOM cine too; of an ECG `analyze` writes it."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Check the maps of packs instead of explaining a file.")
    ] = False,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="With --check: the clips, or ECGs, as in `echonode evaluate`; may be given "
            "several times. Without it 20 simulated clips, or 60 simulated ECGs."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show where in a clip or an ECG a value came from, as pictures; or check such maps."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    packs = load_packs(context)
    if pack is not None:
        packs = _named(packs, pack)
    if check:
        chosen = packs if what is None else _named(packs, what)
        _check(chosen, dataset or (), as_json=as_json)
        return
    if what is None:
        raise Problem("name a file, or a pack with --check", ExitCode.USAGE)
    allow = settings_of(context).analysis.allow_simulated_evidence
    if explain_ecg.is_ecg(Path(what)):
        if dicom:
            raise Problem("of an ECG `echonode analyze` writes the DICOM picture", ExitCode.USAGE)
        explain_ecg.explain_file(
            Path(what), packs, output, method or explain_ecg.USUAL, out,
            allow_simulated=allow, as_json=as_json,
        )  # fmt: skip
        return
    how = _method(method or _USUAL)
    found = _explain_file(Path(what), packs, output, how, allow_simulated=allow)
    written = _write(found, out, dicom=dicom)
    if as_json:
        print_json(written)
        return
    print_table(
        "Explanations",
        ("output", "value", "95 % interval", "pack", "outside the sector", "picture", "cine"),
        [
            (
                one["title"], one["shown"], one["interval"], one["pack"],
                f"{100 * one['outside_share']:.0f} %", one["png"], one["gif"],
            )
            for one in written["explanations"]
        ],
        long=("picture", "cine"),
    )  # fmt: skip
    print_text(f"Method: {how.words}. Research use only, not for diagnosis.")


def _named(packs: Sequence[Pack], name: str) -> tuple[Pack, ...]:
    chosen = tuple(pack for pack in packs if pack.manifest.name == name)[-1:]
    if not chosen:
        raise Problem(f"no pack {name!r}; `echonode packs` lists them", ExitCode.NOT_FOUND)
    return chosen


def _method(name: str) -> MapMethod:
    from models.explain.methods import MapMethod

    try:
        return MapMethod(name)
    except ValueError:
        raise Problem(f"no method {name!r}; there are {_METHODS}", ExitCode.USAGE) from None


class _Explained:
    """A file, and each output with the pack that says it."""

    def __init__(self, clip: Clip, method: MapMethod) -> None:
        self.clip = clip
        self.method = method
        self.each: list[tuple[Pack, Read, ExplainedOutput]] = []


def _explain_file(
    path: Path,
    packs: Sequence[Pack],
    output: str | None,
    method: MapMethod,
    *,
    allow_simulated: bool,
) -> _Explained:
    from models.clip import ClipError, read_clip
    from models.explain.clips import explain_clip, read_for_maps
    from models.explain.target import ExplainError, explained, targets_of
    from models.packs import PackError, PackKind
    from node.results import is_own_object

    if not path.is_file():
        raise Problem(f"{path}: no such file", ExitCode.NOT_FOUND)
    by_name = {
        pack.manifest.name: pack for pack in packs if pack.manifest.kind is not PackKind.WAVEFORM
    }
    asked = {
        name: _wanted(pack, output)
        for name, pack in by_name.items()
        if _wanted(pack, output) is None or _wanted(pack, output)
    }
    if not asked:
        known = sorted({target.name for pack in by_name.values() for target in targets_of(pack)})
        raise Problem(
            f"no output {output!r}; there are {', '.join(known)}, and {_VIEW!r}", ExitCode.NOT_FOUND
        )
    try:
        clip = read_clip(path)
        if is_own_object(clip.header):
            raise Problem(f"{path}: echonode made it: it does not explain its own results")
        found = _Explained(clip, method)
        of_heart = [n for n in asked if by_name[n].manifest.kind is not PackKind.VIEW]
        if of_heart:
            why_not = _why_no_heart(clip, packs)
            if why_not is not None and len(of_heart) == len(asked):
                raise Problem(f"{path}: {why_not}; --output view explains the view itself")
            if why_not is not None:
                say(f"note: only the view is explained: {why_not}")
                asked = {n: w for n, w in asked.items() if n not in of_heart}
        for name, wanted in asked.items():
            pack = by_name[name]
            read = read_for_maps(pack, clip, method)
            names = _names(pack, read, wanted, output, allow_simulated=allow_simulated)
            if names:
                outputs = explain_clip(pack, explained(pack), clip, read, names, method=method)
                found.each += [(pack, read, one) for one in outputs]
    except ClipError as error:
        raise Problem(f"{path}: {error}") from error
    except (ExplainError, PackError) as error:
        raise Problem(str(error)) from error
    if not found.each:
        raise Problem(f"{path}: nothing was found that could be explained; see the notes")
    return found


def _wanted(pack: Pack, output: str | None) -> tuple[str, ...] | None:
    """Which outputs of a pack are meant: None for all that may speak, empty for none."""
    from models.explain.target import targets_of
    from models.packs import PackKind

    if output is None:
        return None
    if output == _VIEW:
        return None if pack.manifest.kind is PackKind.VIEW else ()
    return (output,) if output in {target.name for target in targets_of(pack)} else ()


def _why_no_heart(clip: Clip, packs: Sequence[Pack]) -> str | None:
    """Why the packs of measurements do not read this clip, as the node decides it."""
    from models.packs import PackKind, load_pack, shipped_packs
    from models.views import ViewReader
    from node.analysis import ClipView, reason_to_skip

    namers = [pack for pack in packs if pack.manifest.kind is PackKind.VIEW]
    if not namers:
        shipped = (load_pack(folder) for folder in shipped_packs())
        namers = [pack for pack in shipped if pack.manifest.kind is PackKind.VIEW]
    if not namers:
        return None
    seen = ClipView(view=ViewReader(namers[-1]).read(clip), refused=None, mode=clip.mode)
    return reason_to_skip(seen)


def _names(
    pack: Pack,
    read: Read,
    wanted: tuple[str, ...] | None,
    output: str | None,
    *,
    allow_simulated: bool,
) -> list[str]:
    from models.packs import PackKind
    from node.evidence import why_withheld

    if pack.manifest.kind is PackKind.VIEW:
        if wanted is None and read.view is not None:
            label = read.view.view.value
            return [label] if label in pack.manifest.classes else []
        return list(wanted or ())
    names = []
    for spec in pack.manifest.outputs:
        if wanted is not None and spec.name not in wanted:
            continue
        # Whoever names an output sees it, marked; only guesses at the person stay switched off.
        why = why_withheld(
            spec.name, spec.evidence, allow_simulated=allow_simulated or wanted is not None
        )
        why = why or read.reasons.get(spec.name)
        if why is None:
            names.append(spec.name)
        elif output is not None:
            say(f"note: {spec.name} by {pack.manifest.name} is not explained: {why}")
    structures = set(wanted or ()) - {spec.name for spec in pack.manifest.outputs}
    return [*names, *sorted(structures)]


def _write(found: _Explained, out: Path, *, dicom: bool) -> dict[str, Any]:
    from models.explain import sidebyside
    from node.watch import study_key

    clip = found.clip
    frames = clip.frames(range(min(clip.frame_count, 300)))
    times = tuple(float(time) for time in clip.time_axis.times_ms[: len(frames)])
    key = study_key(clip.sop_instance_uid)
    explanations = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for pack, read, one in found.each:
            words = _words(pack, read, one, found.method)
            picture = sidebyside.draw(
                sidebyside.SideBySide(
                    frames=frames,
                    frame_times_ms=times,
                    source_frames=tuple(range(len(frames))),
                    maps=one.maps,
                    map_frames=one.frames,
                    title=words["title"],
                    value=words["line"],
                    method=found.method.words,
                    of_what=found.method.of_what,
                    unit=one.unit,
                    signed=found.method.signed,
                    note=words["note"],
                    warning=words["warning"],
                )
            )
            stem = f"explain-{key}-{pack.manifest.name}-{one.target.name}-{found.method.value}"
            sidebyside.write_png(picture, out / f"{stem}.png")
            sidebyside.write_gif(picture, out / f"{stem}.gif")
            record = {
                "output": one.target.name,
                "title": words["title"],
                "shown": words["value"],
                "interval": words["interval"],
                "value": None if one.finding is None else one.finding.value,
                "pack": pack.manifest.name,
                "version": pack.manifest.version,
                "method": found.method.value,
                "explained": one.target.words,
                "unit": one.unit,
                "frames": one.frames,
                "outside_share": round(one.outside_share, 3),
                "png": out / f"{stem}.png",
                "gif": out / f"{stem}.gif",
            }
            if dicom:
                record["dicom"] = out / f"{stem}.dcm"
                _write_dicom(clip, pack, one, picture, out / f"{stem}.dcm")
            explanations.append(record)
    except OSError as error:
        raise Problem(f"{out}: cannot be written: {error.strerror}; name another --out") from error
    return {"sop_instance_uid": clip.sop_instance_uid, "explanations": explanations}


def _words(pack: Pack, read: Read, one: ExplainedOutput, method: MapMethod) -> dict[str, str]:
    """What stands over a picture."""
    from models.finding import MOST_OUTSIDE, Evidence
    from models.packs import PackKind
    from node.cli.findings import finding_json, interval, value

    who = f"{pack.manifest.name} {pack.manifest.version}"
    title, warning, between, shown = one.target.title, "", "-", "-"
    note = f"Explained: {one.target.words}"
    if pack.manifest.kind is PackKind.VIEW and read.view is not None:
        title = f"View: {one.target.name}"
        called = read.view
        sure = "" if called.certain else ", uncertain"
        shown = f"the clip is called {called.view.value} (score {called.score:.2f}{sure})"
    elif one.finding is not None:
        found = finding_json(one.finding)
        shown, between = value(found), interval(found)
        simulated = one.finding.evidence is Evidence.SIMULATED
        tested = "simulated clips only, never on patients" if simulated else "patients"
        note = f"Tested on {tested}. {note}"
        warning = f"FOR DEMONSTRATION: {note}" if simulated else ""
    if method.alarms and one.outside_share > MOST_OUTSIDE:
        warning = (
            f"DO NOT RELY ON IT: {100 * one.outside_share:.0f} % of the relevance lies outside the "
            "scanning sector"
        )
    line = shown if between == "-" else f"{shown} (95 % interval {between})"
    return {
        "title": title,
        "value": shown,
        "interval": between,
        "line": f"{line} · {who}",
        "note": note,
        "warning": warning,
    }


def _write_dicom(clip: Clip, pack: Pack, one: ExplainedOutput, picture: Any, path: Path) -> None:
    from models.explain import panels
    from node.cli.reading import write_result
    from node.results import ReportSettings, ResultError, build_capture

    try:
        encoded = build_capture(
            clip.header,
            panels.encode(picture),
            findings=() if one.finding is None else (one.finding,),
            packs=(pack.ref,),
            instance_number=1,
            settings=ReportSettings(simulated_evidence=True),
            created_at=datetime.now(UTC),
        )
    except ResultError as error:
        raise Problem(f"no DICOM cine: {error}") from error
    write_result(path, encoded)


def _check(packs: Sequence[Pack], given: Sequence[str], *, as_json: bool) -> None:
    from models.packs import PackKind

    _one_operation_at_a_time()
    reports: list[QualityReport | WaveformReport] = []
    chosen = list({pack.manifest.name: pack for pack in packs}.values())
    if given and len(chosen) > 1:  # no pack was named: those that the data can be shown to
        waveforms = explain_ecg.is_of_ecgs(given[0])
        chosen = [one for one in chosen if (one.manifest.kind is PackKind.WAVEFORM) == waveforms]
    for pack in chosen:
        of_ecgs = pack.manifest.kind is PackKind.WAVEFORM
        report, files = (explain_ecg.check if of_ecgs else _checked)(pack, given)
        reports.append(report)
        if not as_json:
            print_text(report.as_markdown())
            for file in files:
                say(f"written: {file}")
    if as_json:
        print_json([report.as_json() for report in reports])


def _checked(pack: Pack, given: Sequence[str]) -> tuple[QualityReport, tuple[Path, ...]]:
    """Check the maps of a pack of clips and write the report into its folder."""
    from models.data.dataset import DatasetError, open_dataset
    from models.explain.battery import check_pack, write_report
    from models.explain.target import ExplainError
    from models.packs import PackError, PackKind

    of_views = pack.manifest.kind is PackKind.VIEW
    wanted = given or [_VIEWS_CHECKED_ON if of_views else _CHECKED_ON]
    try:
        report = check_pack(pack, [open_dataset(where) for where in wanted])
        return report, write_report(report, pack.folder)
    except DatasetError as error:
        raise Problem(str(error), ExitCode.USAGE) from error
    except (ExplainError, PackError) as error:
        raise Problem(f"pack {pack.manifest.name}: {error}") from error
    except OSError as error:
        raise Problem(f"{pack.folder}: cannot be written: {error.strerror}") from error


def _one_operation_at_a_time() -> None:
    # All cores work on one operation: running several beside each other only makes them wait.
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # TensorFlow has already run in this process
        tf.config.threading.set_inter_op_parallelism_threads(1)
