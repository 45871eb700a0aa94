"""An object taken apart into elements that may be written back wrong."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

UNDEFINED = 0xFFFFFFFF
PIXEL_DATA = 0x7FE00010
LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT")
LONG_VRS += (b"UV",)
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SHORT_SYNTAXES = {b"1.2.840.10008.1.2": "implicit", b"1.2.840.10008.1.2.2": "big"}
_DEFLATED = b"1.2.840.10008.1.2.1.99"


@dataclass
class Part:
    """One element. ``stated`` is the length that is written; None for the true one."""

    tag: int
    vr: bytes | None
    value: bytes
    stated: int | None = None

    def encode(self, order: str) -> bytes:
        """Its bytes, with the length that it states."""
        length = len(self.value) if self.stated is None else self.stated
        head = struct.pack(f"{order}HH", self.tag >> 16, self.tag & 0xFFFF)
        if self.vr is None:
            return head + struct.pack(f"{order}L", length & UNDEFINED) + self.value
        if self.vr in LONG_VRS:
            return (
                head + self.vr + b"\0\0" + struct.pack(f"{order}L", length & UNDEFINED) + self.value
            )
        return head + self.vr + struct.pack(f"{order}H", length & 0xFFFF) + self.value


@dataclass
class Draft:
    """A whole file: what is before the elements, those of group 2, and all others."""

    preamble: bytes
    meta: list[Part]
    parts: list[Part]
    implicit: bool = False
    order: str = "<"
    deflated: bool = False
    tail: bytes = b""
    deflate_tail: bytes = b""
    others: dict[str, object] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The file."""
        body = b"".join(part.encode(self.order) for part in self.parts) + self.tail
        if self.deflated:
            packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
            body = packer.compress(body) + packer.flush() + self.deflate_tail
        return self.preamble + b"".join(part.encode("<") for part in self.meta) + body

    def get(self, tag: int) -> Part | None:
        """The first element of a tag."""
        return next((part for part in self.parts if part.tag == tag), None)

    def put(self, tag: int, vr: bytes, value: bytes, stated: int | None = None) -> Part:
        """Give an element this value; it is made, in its place, where it is not there."""
        part = self.get(tag)
        shown = None if self.implicit else vr
        if part is None:
            part = Part(tag, shown, value, stated)
            at = next((n for n, p in enumerate(self.parts) if p.tag > tag), len(self.parts))
            self.parts.insert(at, part)
        else:
            part.vr, part.value, part.stated = shown, value, stated
        return part

    def number(self, value: int) -> bytes:
        """A US."""
        return struct.pack(f"{self.order}H", value & 0xFFFF)


def take_apart(data: bytes) -> Draft:
    """The elements of a file; what cannot be taken apart stays whole at its end."""
    preamble = data[:132] if data[128:132] == b"DICM" else b""
    meta, place = _elements(data, len(preamble), implicit=False, order="<", meta=True)
    syntax = next((p.value.rstrip(b"\0 ") for p in meta if p.tag == 0x00020010), b"")
    kind = _SHORT_SYNTAXES.get(syntax)
    draft = Draft(
        preamble, meta, [], implicit=kind == "implicit", order="<" if kind != "big" else ">"
    )
    body = data[place:]
    if syntax == _DEFLATED:
        try:
            body = zlib.decompressobj(-zlib.MAX_WBITS).decompress(body)
        except zlib.error:
            draft.tail = body
            return draft
        draft.deflated = True
    draft.parts, end = _elements(body, 0, implicit=draft.implicit, order=draft.order, meta=False)
    draft.tail = body[end:]
    return draft


def items(value: bytes, order: str = "<") -> list[bytes]:
    """The items of a sequence's value, or the fragments of encapsulated pixels, table first."""
    found, place = [], 0
    while place + 8 <= len(value):
        group, element, length = struct.unpack_from(f"{order}HHL", value, place)
        if (group << 16 | element) != _ITEM:
            break
        if length == UNDEFINED:
            end = _item_end(value, place + 8, implicit=False, order=order)
            found.append(value[place + 8 : end - 8])
            place = end
        else:
            found.append(value[place + 8 : place + 8 + length])
            place += 8 + length
    return found


def fragments_value(fragments: list[bytes]) -> bytes:
    """The value of encapsulated pixels of these fragments, table first."""
    ends = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(f)) + f for f in fragments) + ends


def _elements(
    data: bytes, place: int, *, implicit: bool, order: str, meta: bool
) -> tuple[list[Part], int]:
    found: list[Part] = []
    while place + 8 <= len(data):
        group, element = struct.unpack_from(f"{order}HH", data, place)
        if group == 0xFFFE or (meta and group != 2):
            break
        vr: bytes | None = None if implicit else data[place + 4 : place + 6]
        if vr is not None and not vr.isalpha():
            vr = None
        if vr is None:
            start, length = place + 8, struct.unpack_from(f"{order}L", data, place + 4)[0]
        elif vr in LONG_VRS and place + 12 <= len(data):
            start, length = place + 12, struct.unpack_from(f"{order}L", data, place + 8)[0]
        else:
            start, length = place + 8, struct.unpack_from(f"{order}H", data, place + 6)[0]
        undefined = length == UNDEFINED
        try:
            end = _sequence_end(data, start, implicit, order) if undefined else start + length
        except (ValueError, struct.error):
            break
        if end > len(data):
            break
        value = data[start:end]
        found.append(Part(group << 16 | element, vr, value, UNDEFINED if undefined else None))
        place = end
    return found, place


def _sequence_end(data: bytes, place: int, implicit: bool, order: str) -> int:
    while True:
        group, element, length = struct.unpack_from(f"{order}HHL", data, place)
        tag = group << 16 | element
        place += 8
        if tag == _SEQUENCE_END:
            return place
        if tag != _ITEM:
            raise ValueError("no item")
        place = (
            _item_end(data, place, implicit=implicit, order=order)
            if length == UNDEFINED
            else place + length
        )


def _item_end(data: bytes, place: int, *, implicit: bool, order: str) -> int:
    _, place = _elements(data, place, implicit=implicit, order=order, meta=False)
    group, element = struct.unpack_from(f"{order}HH", data, place)
    if (group << 16 | element) != _ITEM_END:
        raise ValueError("no end")
    return place + 8
