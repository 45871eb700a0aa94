"""``echonode simulate``: echo clips of known anatomy as DICOM files, and as pictures.

With ``--ecg`` it writes ECGs instead: :mod:`node.cli.simulate_ecg`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.options import JsonOption
from node.cli.output import ExitCode, Problem, plain, print_json, print_table, print_text, say
from node.cli.simulate_ecg import AskedEcgs, write_ecgs

if TYPE_CHECKING:
    from models.simulator import Lead, Person, SimulatedClip
    from models.views import View

ALL = "all"
_ECG_PANEL = "With --ecg"
_OF_ECGS = frozenset(
    {
        "rhythm", "conduction", "pr", "qrs", "qt", "no_p", "concordant_t", "noise", "sampling",
        "duration", "scheme", "ecg_object", "median", "annotations",
    }
)  # fmt: skip
_OF_BOTH = frozenset(
    {"seed", "count", "heart_rate", "sex", "study_uid", "out", "png", "truth", "ecg", "as_json"}
)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the command line asks of every clip."""

    frames: int | None
    size: tuple[int, int] | None
    frame_time_ms: float | None
    ef: float | None
    edv_ml: float | None
    wall_cm: float | None
    la_scale: float | None
    heart_rate_bpm: float | None
    lead: Lead | bool | None
    colour: bool | None
    dual: bool
    age: float | None
    sex: str | None
    weight: float | None
    height: float | None

    def of_output(self) -> dict[str, tuple[str, object]]:
        """What shapes an output, by the output's name: the option and its value."""
        return {
            "ef": ("--ef", self.ef),
            "edv": ("--edv", self.edv_ml),
            "lvh": ("--wall", self.wall_cm),
            "la_volume": ("--la-scale", self.la_scale),
            "lead": ("--lead", self.lead or None),
            "age": ("--age", self.age),
            "sex": ("--sex", self.sex),
            "weight": ("--weight", self.weight),
            "height": ("--height", self.height),
        }


@dataclass(frozen=True, kw_only=True)
class _Written:
    """A clip's file, and what is in it."""

    file: str
    sop_instance_uid: str
    study_instance_uid: str
    view: str
    seed: int
    frames: int
    rows: int
    columns: int
    frame_time_ms: float
    truth: dict[str, Any]
    pictures: tuple[str, ...]


def simulate(
    context: typer.Context,
    view: Annotated[
        list[str] | None,
        typer.Option(
            "--view", metavar="VIEW", help="What the clip shows, or 'all'; may be repeated. [a4c]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all that is drawn at random; 0 or more.")] = 0,
    count: Annotated[int, typer.Option(help="Clips of each view, seeds from --seed on.")] = 1,
    frames: Annotated[int | None, typer.Option(help="How many; about one beat if not given.")] = (
        None
    ),
    size: Annotated[
        str | None, typer.Option(metavar="ROWSxCOLUMNS", help="The screen, as 480x640.")
    ] = None,
    frame_time: Annotated[
        float | None, typer.Option(metavar="MS", help="Time between frames.")
    ] = None,
    ef: Annotated[float | None, typer.Option(help="Ejection fraction, %.")] = None,
    edv: Annotated[float | None, typer.Option(help="End-diastolic volume, mL.")] = None,
    wall: Annotated[float | None, typer.Option(help="Wall at end diastole, cm.")] = None,
    la_scale: Annotated[
        float | None, typer.Option(help="Left atrium against its usual length and width.")
    ] = None,
    heart_rate: Annotated[
        float | None, typer.Option("--heart-rate", "--rate", help="Beats a minute.")
    ] = None,
    lead: Annotated[
        bool | None,
        typer.Option("--lead/--no-lead", help="With or without a pacemaker's or defibrillator's."),
    ] = None,
    lead_kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="pacemaker or defibrillator.")
    ] = None,
    age: Annotated[float | None, typer.Option(help="Years.")] = None,
    sex: Annotated[str | None, typer.Option(metavar="F|M", help="F or M.")] = None,
    weight: Annotated[float | None, typer.Option(help="kg.")] = None,
    height: Annotated[float | None, typer.Option(help="cm.")] = None,
    colour: Annotated[
        bool | None, typer.Option("--colour/--no-colour", help="With a colour-Doppler box or not.")
    ] = None,
    dual: Annotated[
        bool, typer.Option("--dual", help="Two pictures side by side, one with colour.")
    ] = False,
    syntax: Annotated[
        str, typer.Option(metavar="NAME", help="The transfer syntax; 'jpeg' as most machines do.")
    ] = "jpeg",
    photometric: Annotated[
        str | None, typer.Option(metavar="NAME", help="As MONOCHROME2, RGB or 'PALETTE COLOR'.")
    ] = None,
    regions: Annotated[
        bool, typer.Option("--regions/--no-regions", help="Say where the picture lies, or not.")
    ] = True,
    study_uid: Annotated[
        str | None, typer.Option(metavar="UID", help="Study Instance UID of all clips.")
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR|FILE", help="A folder, or a .dcm file for one clip.")
    ] = Path("echonode-simulated"),
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also the end-diastolic frame, as PNG.")
    ] = None,
    gif: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also the clip, as GIF at its own speed.")
    ] = None,
    outline: Annotated[
        bool, typer.Option("--outline", help="Draw the true outlines into PNG and GIF.")
    ] = False,
    masks: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also the true masks, as NumPy .npz."),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also all that is true of it, as JSON.")
    ] = None,
    ecg: Annotated[bool, typer.Option("--ecg", help="12-lead ECGs instead of clips.")] = False,
    rhythm: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="sinus, af, flutter, junctional, ventricular; any: as a clinic has them.",
            rich_help_panel=_ECG_PANEL,
        ),
    ] = "sinus",
    conduction: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="normal, rbbb, lbbb, irbbb, delayed.",
            rich_help_panel=_ECG_PANEL,
        ),
    ] = None,
    pr: Annotated[
        float | None, typer.Option(metavar="MS", help="PR.", rich_help_panel=_ECG_PANEL)
    ] = None,
    qrs: Annotated[
        float | None, typer.Option(metavar="MS", help="QRS.", rich_help_panel=_ECG_PANEL)
    ] = None,
    qt: Annotated[
        float | None, typer.Option(metavar="MS", help="QT.", rich_help_panel=_ECG_PANEL)
    ] = None,
    no_p: Annotated[
        bool, typer.Option("--no-p", help="Without P waves.", rich_help_panel=_ECG_PANEL)
    ] = False,
    concordant_t: Annotated[
        bool,
        typer.Option(
            "--concordant-t",
            help="T waves along with the QRS of a bundle branch block.",
            rich_help_panel=_ECG_PANEL,
        ),
    ] = False,
    noise: Annotated[
        float | None,
        typer.Option(help="Times the usual; 0: the heart alone.", rich_help_panel=_ECG_PANEL),
    ] = None,
    sampling: Annotated[
        float | None,
        typer.Option(metavar="HZ", help="Samples a second. [500]", rich_help_panel=_ECG_PANEL),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(metavar="S", help="Length. [10]", rich_help_panel=_ECG_PANEL)
    ] = None,
    scheme: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Codes of leads: mdc or scpecg.", rich_help_panel=_ECG_PANEL
        ),
    ] = "mdc",
    ecg_object: Annotated[
        str,
        typer.Option(
            "--object",
            metavar="NAME",
            help="12-lead, general, ambulatory or general-32.",
            rich_help_panel=_ECG_PANEL,
        ),
    ] = "12-lead",
    median: Annotated[
        bool, typer.Option("--median", help="With a median beat.", rich_help_panel=_ECG_PANEL)
    ] = False,
    annotations: Annotated[
        bool,
        typer.Option(
            "--annotations",
            help="With intervals and waves as a cart's own.",
            rich_help_panel=_ECG_PANEL,
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write simulated echo clips of known anatomy as DICOM, and show them as PNG or GIF.

    With --ecg: 12-lead ECGs of known rhythm and intervals, as DICOM and PNG. The same command
    writes the same samples and UIDs. No patient is in them.
    """
    _check_options(context, ecg=ecg)
    if count < 1:
        raise Problem(f"--count {count}: give 1 or more", ExitCode.USAGE)
    if study_uid is not None and not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", study_uid):
        raise Problem(f"--study-uid {study_uid}: no UID", ExitCode.USAGE)
    if ecg:
        asked_ecgs = AskedEcgs(
            rhythm=rhythm, conduction=conduction, heart_rate_bpm=heart_rate, pr_ms=pr, qrs_ms=qrs,
            qt_ms=qt, sex=sex, p_visible=not no_p, concordant_t=concordant_t, noise=noise,
            rate_hz=sampling, duration_s=duration, scheme=scheme, ecg_class=ecg_object,
            with_median=median, with_annotations=annotations,
        )  # fmt: skip
        write_ecgs(
            asked_ecgs, seeds=range(seed, seed + count), study_uid=study_uid or _study_uid(seed),
            out=out, png=png, truth=truth, as_json=as_json,
        )  # fmt: skip
        return
    from models.simulator.dicom import SYNTAXES

    views = _views(view or ["a4c"])
    if syntax not in SYNTAXES:
        raise Problem(f"--syntax {syntax}: give one of {', '.join(SYNTAXES)}", ExitCode.USAGE)
    asked = _Asked(
        frames=frames, size=_size(size), frame_time_ms=frame_time, ef=ef, edv_ml=edv,
        wall_cm=wall, la_scale=la_scale, heart_rate_bpm=heart_rate, lead=_lead(lead, lead_kind),
        colour=colour, dual=dual, age=age, sex=sex, weight=weight, height=height,
    )  # fmt: skip
    jobs = [(one, number) for one in views for number in range(seed, seed + count)]
    one_file = out.suffix.lower() == ".dcm"
    if one_file and len(jobs) > 1:
        raise Problem(f"--out {out}: {len(jobs)} clips need a folder", ExitCode.USAGE)
    _say_what_is_not_seen(asked, views)
    study = study_uid or _study_uid(seed)
    written, truths = [], []
    for number, (one, its_seed) in enumerate(_with_progress(jobs), start=1):
        clip = _draw(one, its_seed, asked, masks=outline or masks is not None)
        name = f"{one.value}-{its_seed}"
        data, uid = _encode(clip, study, number, SYNTAXES[syntax], photometric, regions)
        file = out if one_file else out / f"{name}.dcm"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        several = len(jobs) > 1
        pictures = _pictures(
            clip,
            png=_numbered(png, name, several),
            gif=_numbered(gif, name, several),
            outline=outline,
            masks=_numbered(masks, name, several),
        )
        truths.append({"file": str(file), **_truth(clip, whole=True)})
        written.append(_record(clip, str(file), uid, study, pictures))
    if truth is not None:
        truth.parent.mkdir(parents=True, exist_ok=True)
        truth.write_text(json.dumps(plain(truths if len(jobs) > 1 else truths[0]), indent=2) + "\n")
    if as_json:
        print_json({"clips": written})
    else:
        _print(written)


# --- What the options say --------------------------------------------------------------------


def _check_options(context: typer.Context, *, ecg: bool) -> None:
    """An option of the other kind would be taken for obeyed."""
    for option in context.command.params:
        if option.name in _OF_BOTH or not _was_given(context, option.name):
            continue
        if ecg and option.name not in _OF_ECGS:
            raise Problem(f"{option.opts[0]}: not with --ecg", ExitCode.USAGE)
        if not ecg and option.name in _OF_ECGS:
            raise Problem(f"{option.opts[0]}: only with --ecg", ExitCode.USAGE)


def _was_given(context: typer.Context, name: str | None) -> bool:
    source = None if name is None else context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _views(names: Sequence[str]) -> list[View]:
    from models.views import View

    known = {view.value: view for view in View}
    wanted = [*known] if ALL in names else [name.lower() for name in names]
    for name in wanted:
        if name not in known:
            raise Problem(
                f"--view {name}: give one of {', '.join(known)}, or {ALL}", ExitCode.USAGE
            )
    return [known[name] for name in dict.fromkeys(wanted)]


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.lower())
    if found is None:
        raise Problem(f"--size {text}: give rows and columns, as 299x299", ExitCode.USAGE)
    return int(found[1]), int(found[2])


def _lead(lead: bool | None, kind: str | None) -> Lead | bool | None:
    from models.simulator import Lead

    if kind is None:
        return lead
    if lead is False:
        raise Problem("--no-lead and --lead-kind: give one of them", ExitCode.USAGE)
    try:
        return Lead(kind.lower())
    except ValueError:
        raise Problem(
            f"--lead-kind {kind}: give one of {', '.join(Lead)}", ExitCode.USAGE
        ) from None


def _person(asked: _Asked, view: View, seed: int) -> Person | None:
    """Whoever was asked for; what was left open is drawn, the same for the same seed."""
    import numpy as np

    from models.simulator import Sex, random_person
    from models.views import View as Views

    if (asked.age, asked.sex, asked.weight, asked.height) == (None,) * 4:
        return None
    sex = None
    if asked.sex is not None:
        try:
            sex = Sex(asked.sex[:1].upper() if asked.sex.lower() in _SEXES else asked.sex)
        except ValueError:
            raise Problem(f"--sex {asked.sex}: give F or M", ExitCode.USAGE) from None
    return random_person(
        np.random.default_rng([seed, tuple(Views).index(view), 1]),
        age_years=asked.age,
        sex=sex,
        weight_kg=asked.weight,
        height_cm=asked.height,
    )


_SEXES = ("f", "m", "female", "male")


def _say_what_is_not_seen(asked: _Asked, views: Sequence[View]) -> None:
    """An option that no chosen view shows would be taken for obeyed."""
    from models.simulator import VISIBLE

    for output, (option, value) in asked.of_output().items():
        if value is None:
            continue
        blind = [view.value for view in views if view not in VISIBLE[output]]
        if blind:
            say(f"note: {option} is not seen in {', '.join(blind)}")


# --- Drawing and writing ---------------------------------------------------------------------


def _draw(view: View, seed: int, asked: _Asked, *, masks: bool) -> SimulatedClip:
    from models.simulator import simulate as draw

    try:
        return draw(
            view,
            seed=seed,
            frames=asked.frames,
            size=asked.size,
            frame_time_ms=asked.frame_time_ms,
            ef=asked.ef,
            edv_ml=asked.edv_ml,
            wall_cm=asked.wall_cm,
            la_scale=asked.la_scale,
            heart_rate_bpm=asked.heart_rate_bpm,
            lead=asked.lead,
            colour_flow=asked.colour,
            dual=asked.dual,
            person=_person(asked, view, seed),
            masks=masks,
        )
    except ValueError as error:
        raise Problem(str(error), ExitCode.USAGE) from error


def _encode(
    clip: SimulatedClip,
    study: str,
    number: int,
    syntax: str,
    photometric: str | None,
    regions: bool,
) -> tuple[bytes, str]:
    from models.simulator.dicom import to_bytes, to_dicom

    try:
        dataset = to_dicom(
            clip,
            study_uid=study,
            transfer_syntax=syntax,
            instance_number=number,
            photometric=photometric,
            with_regions=regions,
        )
    except ValueError as error:
        raise Problem(str(error), ExitCode.USAGE) from error
    return to_bytes(dataset), str(dataset.SOPInstanceUID)


def _study_uid(seed: int) -> str:
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=["echonode simulate", str(seed)]))


def _numbered(path: Path | None, name: str, several: bool) -> Path | None:
    """A picture's name; of several clips each has its own."""
    if path is None or not several:
        return path
    return path.with_name(f"{path.stem}-{name}{path.suffix}")


def _pictures(
    clip: SimulatedClip,
    *,
    png: Path | None,
    gif: Path | None,
    outline: bool,
    masks: Path | None,
) -> tuple[str, ...]:
    if png is None and gif is None and masks is None:
        return ()
    import numpy as np

    from models.simulator.pictures import write_gif, write_png

    for path in (png, gif, masks):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    if png is not None:
        write_png(clip, png, outline=outline)
    if gif is not None:
        write_gif(clip, gif, outline=outline)
    if masks is not None and clip.truth.masks is not None:
        with masks.open("wb") as file:
            np.savez_compressed(file, masks=clip.truth.masks)
    elif masks is not None:
        say(f"note: {clip.view.value} has no masks: {masks} is not written")
        masks = None
    return tuple(str(path) for path in (png, gif, masks) if path is not None)


def _with_progress(jobs: Sequence[tuple[View, int]]) -> Iterator[tuple[View, int]]:
    """The jobs, with a bar for whoever sits at a terminal."""
    if len(jobs) == 1 or not sys.stderr.isatty():
        yield from jobs
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(jobs, description="clips", console=Console(stderr=True), transient=True)


# --- What is said ----------------------------------------------------------------------------


def _truth(clip: SimulatedClip, *, whole: bool) -> dict[str, Any]:
    """What is true of a clip; ``whole`` with what each frame has."""
    truth = clip.truth
    said: dict[str, Any] = {
        "view": clip.view,
        "kind": truth.kind,
        "seed": clip.seed,
        "labels": truth.labels(),
        "heart_rate_bpm": truth.heart_rate_bpm,
        "wall_cm": truth.wall_cm,
        "lead_kind": truth.lead_kind,
        "la_volume_index_ml_m2": truth.la_volume_index,
        "person": truth.person,
        "cm_per_pixel": truth.cm_per_pixel,
    }
    if whole:
        said |= {
            "frame_time_ms": clip.frame_time_ms,
            "phases": truth.phases,
            "volumes_ml": truth.volumes_ml,
        }
    return said


def _record(
    clip: SimulatedClip, file: str, uid: str, study: str, pictures: tuple[str, ...]
) -> _Written:
    return _Written(
        file=file,
        sop_instance_uid=uid,
        study_instance_uid=study,
        view=clip.view.value,
        seed=clip.seed,
        frames=clip.frames.shape[0],
        rows=clip.frames.shape[1],
        columns=clip.frames.shape[2],
        frame_time_ms=clip.frame_time_ms,
        truth=_truth(clip, whole=False),
        pictures=pictures,
    )


def _print(written: Sequence[_Written]) -> None:
    print_table(
        "Simulated clips",
        ("file", "view", "seed", "frames", "ms", "EF %", "EDV mL", "lead", "person"),
        [
            (
                clip.file,
                clip.view if clip.view == clip.truth["kind"] else f"other: {clip.truth['kind']}",
                clip.seed,
                f"{clip.frames} of {clip.rows}x{clip.columns}",
                f"{clip.frame_time_ms:.1f}",
                _rounded(clip.truth["labels"].get("ef")),
                _rounded(clip.truth["labels"].get("edv")),
                clip.truth["lead_kind"],
                _in_words(clip.truth["person"]),
            )
            for clip in written
        ],
        long=("file",),
    )
    for clip in written:
        for path in clip.pictures:
            print_text(path)


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}"


def _in_words(person: Person | None) -> str | None:
    if person is None:
        return None
    return (
        f"{person.sex.value}, {person.age_years:.0f} y, {person.weight_kg:.0f} kg, "
        f"{person.height_cm:.0f} cm"
    )
