"""What a reader does with OHIF, and what it then shows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.viewer.browser import Browser

_NO_PIXELS = ("SR", "ECG")
_ENTRY = "[data-cy^=study-browser-thumbnail]"
_VIEWPORT = "[data-cy=viewport-pane]"
_CORNER = "[data-cy=viewport-overlay-top-left]"
_FRAME = "[data-cy=viewport-overlay-bottom-right]"

_SERIES = """
return [...document.querySelectorAll(arguments[0])].map(one => {
  const picture = one.querySelector('img');
  return {
    text: one.innerText.split('\\n'),
    drawn: picture !== null && picture.complete && picture.naturalWidth > 0,
  };
});
"""

# The lines of every label that lies over the picture, and whether all of it can be read.
_LABELS = """
const view = document.querySelector(arguments[0]).getBoundingClientRect();
return [...document.querySelectorAll('svg.svg-layer text')].map(label => {
  const box = label.getBoundingClientRect();
  return {
    lines: [...label.querySelectorAll('tspan')].map(line => line.textContent),
    box: [box.left - view.left, box.top - view.top, box.right - view.left, box.bottom - view.top],
    view: [view.width, view.height],
  };
});
"""

_SPEED = """
const play = document.querySelector('[data-cy=cine-player-play-pause]');
return play.parentElement.querySelector('input').value;
"""

_WATCH_FRAMES = """
const shown = document.querySelector(arguments[0]);
window.framesShown = new Set([shown.innerText]);
new MutationObserver(() => window.framesShown.add(shown.innerText)).observe(
  shown, {subtree: true, childList: true, characterData: true});
"""

# Whether anything but black stands in the picture's middle third.
_DRAWN = """
const canvas = document.querySelector(`${arguments[0]} canvas`);
if (!canvas || !canvas.width) return false;
const {width, height} = canvas;
const data = canvas.getContext('2d').getImageData(0, height / 3, width, height / 3).data;
return data.some((value, index) => index % 4 < 3 && value > 40);
"""

# Whether a trace is drawn: it is white, as neither paper nor names of leads are.
_TRACED = """
const canvas = document.querySelector(`${arguments[0]} canvas`);
if (!canvas || !canvas.width) return false;
const {width, height} = canvas;
const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;
return data.some((value, index) => index % 4 === 2 && value > 200);
"""

_CENTRE = """
const box = document.querySelectorAll(arguments[0])[arguments[1]]?.getBoundingClientRect();
return box && box.width > 0 ? [box.left + box.width / 2, box.top + box.height / 2] : null;
"""


@dataclass(frozen=True, kw_only=True)
class Series:
    """An entry of the list at the left."""

    modality: str
    description: str
    number: int
    count: int
    drawn: bool


@dataclass(frozen=True, kw_only=True)
class Label:
    """A text over the picture. ``box`` is left, top, right, bottom in pixels of the viewport."""

    lines: Sequence[str]
    box: tuple[float, float, float, float]
    view: tuple[float, float]

    @property
    def whole(self) -> bool:
        """Whether all of it lies inside the viewport."""
        left, top, right, bottom = self.box
        return left >= 0 and top >= 0 and right <= self.view[0] and bottom <= self.view[1]

    def overlaps(self, other: Label) -> bool:
        """Whether the two lie over each other."""
        return (
            self.box[0] < other.box[2]
            and other.box[0] < self.box[2]
            and self.box[1] < other.box[3]
            and other.box[1] < self.box[3]
        )


class Ohif:
    """The viewer in a browser.

    Parameters
    ----------
    browser
        Where it runs.
    site
        Its address.
    """

    def __init__(self, browser: Browser, site: str) -> None:
        self.browser = browser
        self._site = site

    def open_study(self, study_uid: str, *, series: int, first_is_image: bool = True) -> None:
        """Open a study and wait until so many series are listed, those with pixels as pictures."""
        self.browser.open(f"{self._site}/viewer?StudyInstanceUIDs={study_uid}")
        self.browser.wait(
            lambda: (
                len(self.series()) == series
                and all(one.drawn for one in self.series() if one.modality not in _NO_PIXELS)
                and (self.frame() is not None or not first_is_image)
            ),
            what=f"list {series} series and show the first",
        )

    def series(self) -> list[Series]:
        """What the study holds, in the viewer's order."""
        return [_series(one["text"], one["drawn"]) for one in self.browser.script(_SERIES, _ENTRY)]

    def open_series(self, number: int) -> None:
        """Double-click a series' entry."""
        position = [one.number for one in self.series()].index(number)
        self.browser.act("double-click", *self.browser.script(_CENTRE, _ENTRY, position))

    def click(self, name: str) -> None:
        """Click the control that the viewer names so for its own tests."""
        centre: list[float] | None = None

        def there() -> bool:
            nonlocal centre
            centre = self.browser.script(_CENTRE, f"[data-cy={name}]", 0)
            return centre is not None

        self.browser.wait(there, what=f"show the control {name}")
        assert centre is not None
        self.browser.act("click", *centre)

    def frame(self) -> tuple[int, int] | None:
        """Which frame of how many is shown; None while nothing is."""
        counted = re.search(r"\((\d+)/([1-9]\d*)\)", self._text(_FRAME))
        return None if counted is None else (int(counted[1]), int(counted[2]))

    def _text(self, selector: str) -> str:
        found = "return document.querySelector(arguments[0])?.innerText ?? ''"
        return str(self.browser.script(found, selector))

    def shows(self, words: str) -> bool:
        """Whether the series with these words in its upper corner is drawn, in its first frame."""
        shown = self.frame()  # None for a picture of a single frame
        drawn = bool(self.browser.script(_DRAWN, _VIEWPORT))
        return drawn and words in self._text(_CORNER) and (shown is None or shown[0] == 1)

    def traced(self) -> bool:
        """Whether the viewport shows the traces of an ECG."""
        return bool(self.browser.script(_TRACED, _VIEWPORT))

    def text(self) -> str:
        """What the viewport says in words."""
        return self._text(_VIEWPORT)

    def speed(self) -> float:
        """The frames per second at which it would play."""
        return float(self.browser.script(_SPEED))

    def labels(self) -> list[Label]:
        """The texts over the picture."""
        return [_label(one) for one in self.browser.script(_LABELS, _VIEWPORT)]

    def show_labels(self) -> None:
        """Turn the wheel to the next frame and back, which draws what lies over the picture.

        The first report that OHIF 3.13 opens sometimes stays without its labels until then: it
        learns which to draw after it has drawn the picture.
        """
        middle = self.browser.script(_CENTRE, _VIEWPORT, 0)
        for steps in (1, -1):
            left = self.frame()
            self.browser.turn_wheel(*middle, steps)
            self.browser.wait(partial(self._is_past, left), what="turn to another frame")

    def _is_past(self, left: tuple[int, int] | None) -> bool:
        return self.frame() not in (None, left)

    def watch_frames(self) -> None:
        """Begin to note which frames come up."""
        self.browser.script(_WATCH_FRAMES, _FRAME)

    def frames_shown(self) -> set[str]:
        """The frames that came up since."""
        return set(self.browser.script("return [...window.framesShown]"))


def _series(text: Sequence[str], drawn: bool) -> Series:
    # "US", perhaps a description, "S:901", "30"
    modality, *description, number, count = text
    return Series(
        modality=modality,
        description=" ".join(description),
        number=int(number.removeprefix("S:")),
        count=int(count),
        drawn=drawn,
    )


def _label(found: dict[str, Any]) -> Label:
    left, top, right, bottom = found["box"]
    width, height = found["view"]
    return Label(lines=found["lines"], box=(left, top, right, bottom), view=(width, height))
