"""How much an object may ask for. What asks for more is refused, or left out, before it is taken.

Far above anything that an echo machine writes, far below what would hurt the machine that reads.
"""

from __future__ import annotations

from typing import Final

MIB: Final = 1024**2

# --- pixels ---

MOST_FRAMES: Final = 100_000
"""Frames of a clip."""
MOST_PIXELS: Final = 16 * MIB
"""Pixels of a frame: a screen of 4096 x 4096."""
MOST_CLIP_BYTES: Final = 2048 * MIB
"""Grey that one call may give out."""
MOST_INFLATED: Final = 512 * MIB
"""A deflated dataset, inflated."""
MOST_FRAGMENTS: Final = 250_000
"""Items of encapsulated pixel data."""
MOST_GROWTH: Final = 4
"""An encoded frame takes no more bytes than so many times its pixels; what follows is not read."""
MOST_SCANS: Final = 200
"""Passes of a progressive JPEG over the frame: each costs as much time as the first."""
MOST_COMPONENTS: Final = 4
"""Planes of a code stream."""
MOST_TILES: Final = 1024
"""Tiles of a JPEG 2000 frame."""
MOST_BLOCKS: Final = 300_000
"""Code-blocks of a JPEG 2000 frame: of 16 x 16 pixels in the largest grey one."""
MOST_PACKETS: Final = 4_000_000
"""Packets of a JPEG 2000 frame: precincts times layers."""

# --- what stands before the pixels ---

MOST_HEADER_BYTES: Final = 64 * MIB
"""Bytes that are read, or inflated, to get at the header."""
MOST_META_BYTES: Final = MIB
"""The same of the file meta information."""
MOST_ELEMENTS: Final = 50_000
"""Elements of a header, and of one of its sequences with all that is in it."""
MOST_HEADS: Final = 20 * MOST_ELEMENTS
"""Elements of a sequence without a stated length that are looked at to find its end."""
MOST_DEPTH: Final = 16
"""Sequences in sequences."""
MOST_BROKEN_BYTES: Final = 8 * MIB
"""What is read after a sequence whose end is not found where it should be."""
MOST_STRAYS: Final = 1000
"""Delimiters that delimit nothing."""
LARGE_VALUE: Final = 64 * 1024
"""Longer values are looked at before they are read."""
MOST_VALUE_BYTES: Final = 2 * MIB
"""A value that is taken apart into numbers or words."""
MOST_BINARY_BYTES: Final = 16 * MIB
"""A value that stays as it is."""
MOST_NUMBERS: Final = MOST_FRAMES + 1
"""Numbers in a value written as text: a time for every frame."""
MOST_WORDS: Final = 10_000
"""Words in a value."""
MOST_PALETTE: Final = 65_536
"""Entries of a colour palette."""
