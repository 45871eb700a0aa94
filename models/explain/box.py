"""A rectangle of a drawing, in whole pixels."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """Where something stands."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """The first column beyond it."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """The first row beyond it."""
        return self.top + self.height

    def fitted(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns of a frame of this shape where it just fits in."""
        scale = min(self.height / shape[0], self.width / shape[1])
        rows, columns = max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
        return min(self.height, rows), min(self.width, columns)

    def centred(self, image: Image.Image) -> tuple[int, int]:
        """Where an image's left upper corner comes when it stands in the middle."""
        return (
            self.left + (self.width - image.width) // 2,
            self.top + (self.height - image.height) // 2,
        )
