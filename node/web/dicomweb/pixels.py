"""Pictures and uncompressed frames, made in a process of their own.

A foreign code stream may take long, take much memory, or kill the process that decodes it: it is
not the node's.
"""

from __future__ import annotations

import io
import math
import resource
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread, dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from models.clip import ClipError, bytes_beside_pixels
from models.frames import Frames
from node.executor import WorkerError, WorkerProcesses

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_TIME_LIMIT_S = 60.0
_MOST_WAITING = 8
_MEMORY_BYTES = 4 << 30  # of addresses, libraries included
_MOST_PLAIN_BYTES = 512 << 20
_WORD_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
_MOST_SIDE = 4096  # of a picture that is made larger


class PictureError(Exception):
    """The pixels cannot be given so; the message says why."""


class BusyError(PictureError):
    """So many wait already: threads are for others, too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Which values become black and white (PS3.3 C.11.2)."""

    centre: float
    width: float
    function: str = "linear"


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """How a frame is drawn. ``region``: left, top, width, height; ``size``: width, height."""

    media: str
    window: Window | None = None
    quality: int = 90
    size: tuple[int, int] | None = None
    region: tuple[float, float, float, float] | None = None


class Pixels:
    """The process, which starts when it is first asked; any thread may ask.

    Raises
    ------
    PictureError
        From every method, where the pixels cannot be given.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(_MOST_WAITING)
        self._workers: WorkerProcesses | None = None

    def draw(self, path: Path, index: int, drawing: Drawing) -> bytes:
        """A frame as a picture."""
        return self._call(draw, path, index, drawing)

    def plain_frames(self, path: Path, indices: Sequence[int]) -> list[bytes]:
        """Frames that were compressed without loss, or deflated, as they were before."""
        return self._call(plain_frames, path, tuple(indices))

    def write_plain(self, path: Path, target: Path) -> None:
        """An object in Explicit VR Little Endian."""
        self._call(write_plain, path, target)

    def stop(self) -> None:
        """End the process."""
        with self._lock:
            workers, self._workers = self._workers, None
        if workers is not None:
            workers.terminate()

    def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if not self._places.acquire(blocking=False):
            raise BusyError("so many pictures are being made: ask again")
        try:
            with self._lock:
                if self._workers is None:
                    self._workers = WorkerProcesses(
                        1, initializer=_bound_memory, time_limit_s=_TIME_LIMIT_S
                    )
                workers = self._workers
            return workers.submit(function, *args, **kwargs).result()
        except ClipError as error:
            raise PictureError(str(error)) from None
        except (WorkerError, MemoryError, RuntimeError) as error:
            log.warning("picture-not-made", error=type(error).__name__)
            raise PictureError("its pixels cannot be decoded here") from None
        finally:
            self._places.release()


def _bound_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


def draw(path: Path, index: int, drawing: Drawing) -> bytes:
    """See :class:`Pixels`; raises :class:`ClipError`."""
    frames = Frames(path, inflating=True)
    pixels = frames.colour(index)
    if drawing.window is not None and frames.layout.samples == 1:
        pixels = _windowed(pixels, drawing.window, frames)
    picture = Image.fromarray(pixels)
    if frames.layout.samples == 1 and "PALETTE" not in frames.layout.photometric:
        picture = picture.convert("L")
    if drawing.region is not None:
        left, top, width, height = drawing.region
        if left >= picture.width or top >= picture.height:
            raise ClipError("the viewport lies outside the picture")
        right, bottom = min(left + width, picture.width), min(top + height, picture.height)
        picture = picture.crop((round(left), round(top), round(right), round(bottom)))
    if drawing.size is not None:
        # PS3.18 8.3.5.1.3: fitted into the viewport, its shape kept.
        factor = min(drawing.size[0] / picture.width, drawing.size[1] / picture.height)
        width_px, height_px = (
            min(_MOST_SIDE, max(1, round(side * factor))) for side in picture.size
        )
        picture = picture.resize((width_px, height_px))
    out = io.BytesIO()
    if drawing.media == "image/png":
        picture.save(out, "PNG")
    elif drawing.media == "image/gif":
        picture.save(out, "GIF")
    else:
        picture.save(out, "JPEG", quality=drawing.quality)
    return out.getvalue()


def plain_frames(path: Path, indices: Sequence[int]) -> list[bytes]:
    """See :class:`Pixels`; raises :class:`ClipError`."""
    frames = Frames(path, inflating=True)
    if frames.frame_bytes * len(indices) > _MOST_PLAIN_BYTES:
        raise ClipError("so many frames are not decoded at once")
    return [frames.plain(index) for index in indices]


def write_plain(path: Path, target: Path) -> None:
    """See :class:`Pixels`; raises :class:`ClipError`."""
    size = path.stat().st_size
    if size > _MOST_PLAIN_BYTES or bytes_beside_pixels(path) > _MOST_PLAIN_BYTES // 8:
        raise ClipError("it is too large to be converted")
    try:
        dataset = dcmread(path)
        syntax = dataset.file_meta.TransferSyntaxUID
    except Exception as error:
        raise ClipError("it cannot be read as a whole") from error
    if syntax.is_encapsulated:
        frames = Frames(path)
        if frames.frame_bytes * frames.count > _MOST_PLAIN_BYTES:
            raise ClipError("it is too large to be decoded")
    try:
        if syntax.is_encapsulated:
            dataset.decompress(generate_instance_uid=False)
        elif syntax == ExplicitVRBigEndian:
            dataset.walk(_turn)
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dcmwrite(target, dataset, implicit_vr=False, little_endian=True, enforce_file_format=True)
    except Exception as error:
        raise ClipError("it cannot be converted") from error


def _turn(_dataset: Dataset, element: DataElement) -> None:
    """Turn words that stand in big endian; pydicom turns all but these."""
    size = _WORD_BYTES.get(element.VR)
    if size and isinstance(element.value, bytes) and not len(element.value) % size:
        element.value = np.frombuffer(element.value, f">u{size}").astype(f"<u{size}").tobytes()


def _windowed(pixels: NDArray[np.uint8], window: Window, frames: Frames) -> NDArray[np.uint8]:
    """A grey picture with other contrast. The window is in the values that the header means."""
    layout = frames.layout
    slope = _number(frames.header.get("RescaleSlope"), 1.0) or 1.0
    intercept = _number(frames.header.get("RescaleIntercept"), 0.0)
    # The picture holds 8 bits of what is stored; signed values are lifted by half the range.
    scale = 255.0 / ((1 << layout.bits_stored) - 1)
    lift = (1 << (layout.bits_stored - 1)) if layout.signed else 0
    values = pixels.astype(np.float64)
    if layout.photometric == "MONOCHROME1":
        values = 255.0 - values
    values = (values / scale - lift) * slope + intercept
    centre, width = window.centre, window.width
    if window.function == "sigmoid":
        seen = 255.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -700, 700)))
    elif window.function == "linear-exact" or width <= 1:
        seen = ((values - centre) / width + 0.5) * 255.0
    else:
        seen = ((values - (centre - 0.5)) / (width - 1) + 0.5) * 255.0
    grey = np.clip(np.rint(seen), 0, 255).astype(np.uint8)
    return 255 - grey if layout.photometric == "MONOCHROME1" else grey


def _number(value: Any, otherwise: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return otherwise
    return number if math.isfinite(number) else otherwise
