"""Frames of clips as JPEG: of the cine that the node made, or of the clip as models see it.

Nothing outside the sector is ever shown: the cines hold nothing else, and of a source only what
:meth:`models.clip.Clip.frames` gives. Of an ECG there are the pages that the node made.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import get_frame
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage

from models.clip import Clip, ClipError, Mode, read_clip
from node.results.cine import Cine, read_cine
from node.results.objects import ResultError
from storage.catalog import RecordingKind, ShownRecording
from storage.files import FileStore, FileStoreError

MOST_FRAMES = 240
"""Of a clip that is played: a longer one is thinned."""

_MOST_SIDE = 800  # pixels of a source's frame
_QUALITY = 85
_OPEN_CLIPS, _OPEN_CINES, _KEPT_POSTERS = 3, 3, 200
_LARGEST_CINE = 150_000_000  # bytes

_SHOWN_MODES = frozenset({Mode.TWO_D.value, Mode.COLOUR.value})

Made = TypeVar("Made")


class NoPictureError(Exception):
    """There is nothing to show; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Film:
    """What a player needs: the numbers of the frames, from 1, and when each is shown."""

    frames: tuple[int, ...]
    times_ms: tuple[float, ...]
    lasts_ms: float
    poster: int


class Pictures:
    """Gives frames; from any thread.

    A few objects are held open, since whoever plays a clip asks for one frame after another.
    One thing is decoded at a time: the machine's work is analysis.
    """

    def __init__(self, files: FileStore) -> None:
        self._files = files
        self._decoding = threading.Lock()
        self._clips: _Held[Clip] = _Held(_OPEN_CLIPS)
        self._cines: _Held[Cine] = _Held(_OPEN_CINES)
        self._posters: _Held[bytes] = _Held(_KEPT_POSTERS)

    def film(self, shown: ShownRecording) -> Film:
        """How a clip is played.

        Raises
        ------
        NoPictureError
            If there is nothing to show.
        """
        if shown.kind is RecordingKind.ECG:
            raise NoPictureError("the pages of an ECG are no film")
        with self._decoding:
            if shown.cine_key is not None:
                cine = self._cine(shown.cine_key)
                numbers = range(1, cine.count + 1)
                return _film([cine.time_ms(number) for number in numbers], cine.poster)
            key = _source(shown)
            with self._local(key):
                clip = self._clip(key)
            return _film(clip.time_axis.times_ms.tolist(), 1 + clip.frame_count // 3)

    def frame(self, shown: ShownRecording, number: int) -> bytes:
        """A frame, or a page of an ECG, counted from 1.

        Raises
        ------
        NoPictureError
            If there is no such frame, or nothing to show.
        """
        with self._decoding:
            if shown.cine_key is not None:
                return _of_cine(self._cine(shown.cine_key), number)
            key = _source(shown)
            with self._local(key):
                return _of_clip(self._clip(key), number)

    def poster(self, shown: ShownRecording) -> bytes:
        """The frame that stands for a clip; raises :class:`NoPictureError` as :meth:`frame`."""
        key = shown.cine_key or _source(shown)
        with self._decoding:
            kept = self._posters.get(key)
        if kept is None:
            first = 1 if shown.kind is RecordingKind.ECG else self.film(shown).poster
            kept = self.frame(shown, first)
            with self._decoding:
                self._posters.put(key, kept)
        return kept

    def still(self, file_key: str) -> bytes:
        """The first page of a capture that the node made."""
        data = self._read(file_key)
        dataset = dcmread(BytesIO(data))
        if dataset.file_meta.TransferSyntaxUID != JPEGBaseline8Bit:
            raise NoPictureError("it is no JPEG that a browser can show")
        count = int(dataset.get("NumberOfFrames") or 1)
        return get_frame(dataset.PixelData, 0, number_of_frames=count)

    def _cine(self, key: str) -> Cine:
        return self._cines.or_made(key, lambda: _opened_cine(self._read(key)))

    def _clip(self, key: str) -> Clip:
        return self._clips.or_made(key, lambda: self._opened_clip(key))

    def _opened_clip(self, key: str) -> Clip:
        try:
            with self._local(key) as path:
                clip = read_clip(path)
        except ClipError as error:
            raise NoPictureError(f"the clip cannot be read: {error}") from error
        # What is stated in the row came of the same file, and might be another's by now.
        if clip.mode.value not in _SHOWN_MODES or not clip.sector.mask.any():
            raise NoPictureError("no sector is seen, and nothing outside one is shown")
        return clip

    @contextmanager
    def _local(self, key: str) -> Iterator[Path]:
        """A clip's file: always at the same place, so a clip that is held finds it again."""
        with ExitStack() as held:
            try:
                path = held.enter_context(self._files.local(key))
            except FileStoreError as error:
                raise NoPictureError("the file is gone or cannot be read") from error
            yield path

    def _read(self, key: str) -> bytes:
        try:
            if (self._files.size_bytes(key) or 0) > _LARGEST_CINE:
                raise NoPictureError("the file is too large to be shown here")
            with self._files.open(key) as file:
                return file.read()
        except (OSError, FileStoreError) as error:
            raise NoPictureError("the file is gone or cannot be read") from error


def has_picture(shown: ShownRecording) -> bool:
    """Whether there is something to show, as far as the rows tell."""
    return shown.cine_key is not None or (
        shown.kind is RecordingKind.ULTRASOUND
        and shown.file_key is not None
        and shown.mode in _SHOWN_MODES
    )


def _source(shown: ShownRecording) -> str:
    if not has_picture(shown) or shown.file_key is None:
        raise NoPictureError("only two-dimensional pictures whose file is kept are shown")
    return shown.file_key


def _opened_cine(data: bytes) -> Cine:
    """Pages of an ECG, too: of one page in the class of one frame."""
    dataset = dcmread(BytesIO(data))
    if dataset.SOPClassUID == SecondaryCaptureImageStorage:
        dataset.NumberOfFrames = 1
        return Cine(dataset)
    try:
        return read_cine(data)
    except ResultError as error:
        raise NoPictureError(str(error)) from error


def _of_cine(cine: Cine, number: int) -> bytes:
    if not 1 <= number <= cine.count:
        raise NoPictureError(f"there is no frame {number}; it has {cine.count}")
    return cine.frame(number)


def _of_clip(clip: Clip, number: int) -> bytes:
    if not 1 <= number <= clip.frame_count:
        raise NoPictureError(f"there is no frame {number}; it has {clip.frame_count}")
    try:
        grey = clip.frames([number - 1])[0]
    except ClipError as error:
        raise NoPictureError(f"frame {number} cannot be read: {error}") from error
    image = Image.fromarray(grey)
    image.thumbnail((_MOST_SIDE, _MOST_SIDE))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _film(times_ms: list[float], poster: int) -> Film:
    count = len(times_ms)
    step = max(1, -(-count // MOST_FRAMES))
    chosen = range(0, count, step)
    whole = times_ms[-1] - times_ms[0]
    last = whole / (count - 1) if count > 1 else 0.0
    return Film(
        frames=tuple(index + 1 for index in chosen),
        times_ms=tuple(round(times_ms[index] - times_ms[0], 2) for index in chosen),
        lasts_ms=round(whole + last, 2),
        poster=int(np.clip(poster, 1, count)),
    )


class _Held(Generic[Made]):
    """The last few things that were asked for. Not from two threads at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: OrderedDict[str, Made] = OrderedDict()

    def get(self, key: str) -> Made | None:
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def put(self, key: str, made: Made) -> None:
        self._held[key] = made
        while len(self._held) > self._most:
            self._held.popitem(last=False)

    def or_made(self, key: str, make: Callable[[], Made]) -> Made:
        held = self.get(key)
        if held is None:
            held = make()
            self.put(key, held)
        return held


def pictures_of(state: Any, files: FileStore) -> Pictures:
    """The one of a site."""
    made: Pictures | None = getattr(state, "pictures", None)
    if made is None:
        made = state.pictures = Pictures(files)
    return made
