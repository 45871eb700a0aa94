"""All that can be said of a pack: every problem at once, and what it does with a picture."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from models.finding import Evidence
from models.packs.checks import MANIFEST, problems_of
from models.packs.errors import PackError
from models.packs.keras_file import read_checked
from models.packs.loading import Pack, check_weights, wrong_fields
from models.packs.manifest import KerasFile, Manifest, PackKind

if TYPE_CHECKING:
    from models.clip import Clip
    from models.readers import Reading

COMPANIONS = {
    "LICENSE": "its terms",
    "MODEL_CARD.md": "what it is for, and what not",
    "evaluation.json": "the figures",
    "evaluation.md": "the report on how it was tested",
}
"""What belongs beside a manifest and its weights, and what it tells."""

_FRAMES = 20
_SHOWN = (
    "a picture of speckle; see whether input.mean and input.std are those of its training",
    "a simulated ECG; see whether input.rate_hz and input.leads are those of its training",
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a pack's network is, and what it gave for a clip of speckle or a plain ECG, in words.

    ``input_shape`` and ``output_shape`` are those that readers see, None for any number of frames
    or recordings.
    ``weights`` are the numbers that it holds, 0 where they are not to be counted.
    """

    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]
    weights: int
    seconds: float
    said: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was found. ``problems`` keep the pack from being used, ``notes`` do not.

    ``manifest`` is None where it cannot be read, ``trial`` where there was a problem before it.
    """

    folder: Path
    manifest: Manifest | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    trial: Trial | None


def inspect_pack(folder: Path) -> Inspection:
    """Check everything about a pack in one pass, and run it once. Imports TensorFlow."""
    manifest, problems = _manifest(folder)
    if manifest is None:
        return Inspection(
            folder=folder, manifest=None, problems=tuple(problems), notes=(), trial=None
        )
    problems += problems_of(manifest)
    trial = None
    try:
        path = check_weights(folder, manifest)
        if isinstance(manifest.network, KerasFile):
            read_checked(path)
        if not problems:
            trial = _try(Pack(folder=folder, manifest=manifest), problems)
    except PackError as error:
        problems.append(str(error).removeprefix(f"pack {folder}: "))
    return Inspection(
        folder=folder,
        manifest=manifest,
        problems=tuple(problems),
        notes=tuple(_notes(folder, manifest)),
        trial=trial,
    )


def _manifest(folder: Path) -> tuple[Manifest | None, list[str]]:
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes()), []
    except OSError as error:
        return None, [f"no readable {MANIFEST}: {error.strerror}"]
    except ValidationError as error:
        return None, wrong_fields(error)


def _notes(folder: Path, manifest: Manifest) -> Iterator[str]:
    for name, what in COMPANIONS.items():
        if not (folder / name).is_file():
            yield f"no {name}: {what}"
    for output in manifest.outputs:
        if output.evidence is Evidence.PATIENTS and not output.figures:
            yield f"output {output.name}: tested on patients, it says, and gives no figures"
        if output.low_error is None or output.high_error is None:
            yield f"output {output.name}: no interval will stand beside its values"
    for path in sorted(folder.iterdir()):
        if path.suffix in (".py", ".pkl", ".pickle", ".so"):
            yield f"{path.name}: never read"


def _try(pack: Pack, problems: list[str]) -> Trial:
    """Run a pack once on speckle, or on a simulated ECG, as a reader does."""
    network = pack.network
    before = time.perf_counter()
    of_ecgs = pack.manifest.kind is PackKind.WAVEFORM
    said, sound = _said(pack, speckled_clip())
    if not sound:
        problems.append(
            f"the network: it gives NaN or infinity for {_SHOWN[of_ecgs]}, and whether its weights "
            "are whole"
        )
    return Trial(
        input_shape=tuple(network.input_shape),
        output_shape=tuple(network.output_shape),
        weights=int(network.count_params()),
        seconds=time.perf_counter() - before,
        said=tuple(said),
    )


def _said(pack: Pack, clip: Clip) -> tuple[list[str], bool]:
    """Words for each thing that a pack says of a clip, and whether all its numbers are finite."""
    from models.readers import RegressionReader, TracingReader
    from models.views import ViewReader

    if pack.manifest.kind is PackKind.WAVEFORM:
        return _said_of_an_ecg(pack)
    if pack.manifest.kind is PackKind.VIEW:
        viewer = ViewReader(pack)
        chances = viewer.chances(clip)
        best = int(np.argmax(chances))
        words = f"{pack.manifest.classes[best]}, score {chances[best]:.2f}"
        return [words], bool(np.isfinite(chances).all())
    if pack.manifest.kind is PackKind.TRACING:
        tracer = TracingReader(pack)
        inputs = np.zeros((1, tracer.spec.rows, tracer.spec.columns, 1), np.float32)
        finite = bool(np.isfinite(tracer.run(inputs)).all())
        return _words(tracer.read(clip)), finite
    regressor = RegressionReader(pack)
    raw = regressor.run(regressor.inputs(clip)[0])
    return _words(regressor.read(clip)), bool(np.isfinite(raw).all())


def _said_of_an_ecg(pack: Pack) -> tuple[list[str], bool]:
    from models.ecg.reader import WaveformReader
    from models.ecg.simulator import EcgWanted, simulate_ecg

    ecg = simulate_ecg(EcgWanted(), seed=1).ecg
    reader = WaveformReader(pack)
    return _words(reader.read(ecg)), bool(np.isfinite(reader.run(reader.inputs(ecg))).all())


def _words(reading: Reading) -> list[str]:
    return [
        *(f"{found.output}: {found.value:.4g} {found.unit}" for found in reading.findings),
        *(f"{refused.output}: not given: {refused.reason}" for refused in reading.refusals),
    ]


def speckled_clip(frames: int = _FRAMES) -> Clip:
    """A clip of a fan that shows nothing but speckle: every network can run on it."""
    from models.clip import Clip

    rows, columns = np.mgrid[0:120, -80:80]
    fan = (np.abs(columns) < rows * 0.6) & (np.hypot(rows, columns) < 118)
    speckle = np.random.default_rng(1).integers(40, 200, (frames, *fan.shape), dtype=np.uint8)
    speckle[:, ~fan] = 0
    return Clip.from_frames(speckle, frame_time_ms=40.0, spacing_mm=1.0)


def read_fields(path: Path) -> dict[str, Any]:
    """The fields of a manifest that may not be whole yet.

    Raises
    ------
    PackError
        If it cannot be read, or is no JSON object.
    """
    try:
        fields = json.loads(path.read_bytes())
    except OSError as error:
        raise PackError(f"manifest {path}: {error.strerror}; name a file") from error
    except (ValueError, RecursionError) as error:
        raise PackError(f"manifest {path}: no JSON: {error}; see docs/packs.md") from error
    if not isinstance(fields, dict):
        raise PackError(f"manifest {path}: a JSON object is wanted; see docs/packs.md")
    return fields
