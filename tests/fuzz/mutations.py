"""Ways to break an object. Each takes a random source and a draft, and changes the draft.

The kinds follow what has broken DICOM readers: lengths that lie in both directions, sequences
without end, encodings that are not the stated ones, sizes for which no memory is, and headers of
code streams that say something else than the header of the object.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Final

from tests.fuzz.draft import (
    LONG_VRS,
    PIXEL_DATA,
    UNDEFINED,
    Draft,
    Part,
    fragments_value,
    items,
)

Rng = random.Random
_REGIONS: Final = 0x00186011
_VRS: Final = (
    *(b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM".split()),
    *(b"UC UI UL UN UR US UT UV ZZ".split()),
    b"\0\0",
    b"??",
    b"ob",
    b"\xff\xff",
)
_LENGTHS: Final = (0, 1, 2, 7, 0xFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000)
_LENGTHS_WIDE: Final = (*_LENGTHS, 0xFFFFFFFE, UNDEFINED, 0x40000000)
_NUMBERS: Final = (
    b"", b" ", b"0", b"-1", b"1e400", b"-1e308", b"1e-320", b"NaN", b"inf", b"-inf", b"0x10",
    b"99999999999999999999", b"9" * 5000, b"1\\2\\", b"\\\\\\", b"\xff\xfe", b"1.5.5", b"--1",
    b"2147483648", b"0.0000000000000001", b"\xd9\xa1\xd9\xa2", b"1_0", b" 1 ", b"\0\0", b"1,5",
)  # fmt: skip
_UIDS: Final = (
    b"", b"../../../../etc/passwd", b"..", b".", b"1.2/../../3", b"/etc/passwd", b"1.2.3\n",
    b"1.2.3\r\n", b"1.2\x003", b"1" * 65, b"1." * 40, b"1" * 5000, b"\xd9\xa1.\xd9\xa2",
    b"1.2.3 ", b" 1.2.3", b"1..2", b"1.2.3;rm -rf", b"$(id)", b"1.2\\1.3", b"%2e%2e%2f", b"CON",
    b"\xff\xff", b"-1.2", b"1.02.3", b"{0}", b"1.2.3\t", "１.２".encode(),
)  # fmt: skip
_CHARACTER_SETS: Final = (
    b"ISO_IR 100", b"ISO_IR 192", b"GB18030", b"GBK", b"ISO 2022 IR 87", b"\\ISO 2022 IR 87",
    b"ISO 2022 IR 149\\ISO 2022 IR 58", b"ISO_IR 999", b"utf-16", b"utf-7", b"idna", b"punycode",
    b"\\" * 200, b"ISO 2022 IR 6\\ISO 2022 IR 13\\ISO 2022 IR 87\\ISO 2022 IR 159", b"rot13",
    b"base64_codec", b"zlib_codec", b"unicode_escape", b"\xff\xff", b"raw_unicode_escape", b"hex",
    b"ISO_IR 13", b"ISO_IR 166\\ISO 2022 IR 166", b"undefined",
)  # fmt: skip
_TEXTS: Final = (
    b"\x1b$B\x1b$", b"\x1b(B" * 300, b"\x1b$)C\xb1\xe8\xff", b"\x1b%/I", b"\x1b", b"\x84\x31\xa4",
    b"\xed\xa0\x80", b"\xf5\x90\x80\x80", b"\0\0\0", b"=" * 50, b"^" * 500, b"A" * 70000,
    b"\xff\xfe\xfd", b"\x0e\x0f\x1b[2J", b"\xef\xbb\xbf", b"\\" * 9000, b"\xe2\x80\xae",
)  # fmt: skip
_SYNTAXES: Final = (
    b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2",
    b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.5", b"1.2.840.10008.1.2.4.50",
    b"1.2.840.10008.1.2.4.51", b"1.2.840.10008.1.2.4.57", b"1.2.840.10008.1.2.4.70",
    b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.4.81", b"1.2.840.10008.1.2.4.90",
    b"1.2.840.10008.1.2.4.91", b"1.2.840.10008.1.2.4.92", b"1.2.840.10008.1.2.4.93",
    b"1.2.840.10008.1.2.4.94", b"1.2.840.10008.1.2.4.95", b"1.2.840.10008.1.2.4.100",
    b"1.2.840.10008.1.2.4.102", b"1.2.840.10008.1.2.4.107", b"1.2.840.10008.1.2.4.110",
    b"1.2.840.10008.1.2.4.201", b"1.2.840.10008.1.2.4.202", b"1.2.840.10008.1.2.4.204",
    b"1.2.840.10008.1.2.8.1", b"1.2.840.10008.5.1.4.1.1.3.1", b"1.2.3", b"", b"../x", b"1" * 300,
)  # fmt: skip
_GEOMETRY: Final = {
    0x00280002: "US",  # Samples per Pixel
    0x00280006: "US",  # Planar Configuration
    0x00280010: "US",  # Rows
    0x00280011: "US",  # Columns
    0x00280100: "US",  # Bits Allocated
    0x00280101: "US",  # Bits Stored
    0x00280102: "US",  # High Bit
    0x00280103: "US",  # Pixel Representation
}
_SIZES: Final = (0, 1, 2, 3, 4, 7, 8, 9, 12, 16, 17, 24, 32, 64, 255, 256, 4096, 32767, 65535)
_PHOTOMETRIC: Final = (
    b"MONOCHROME1", b"MONOCHROME2", b"PALETTE COLOR", b"RGB", b"YBR_FULL", b"YBR_FULL_422",
    b"YBR_ICT", b"YBR_RCT", b"YBR_PARTIAL_420", b"XYB", b"HSV", b"", b"rgb\\rgb", b"\xff",
)  # fmt: skip
_KINDS: Final = (0, 1, 1, 2, 3, 4, 9)
_UNITS: Final = (0, 3, 3, 99)
_TIMES: Final = {
    0x00181063: b"DS",  # Frame Time
    0x00181065: b"DS",  # Frame Time Vector
    0x00180040: b"IS",  # Cine Rate
    0x00082144: b"IS",  # Recommended Display Frame Rate
    0x00180072: b"DS",  # Effective Duration
    0x00181088: b"IS",  # Heart Rate
}
_OTHERS: Final = {
    0x00080008: b"CS", 0x00080020: b"DA", 0x00080050: b"SH", 0x00080060: b"CS", 0x00080070: b"LO",
    0x00081030: b"LO", 0x00100010: b"PN", 0x00100020: b"LO", 0x00100030: b"DA", 0x00101010: b"AS",
    0x00101030: b"DS", 0x00280008: b"IS", 0x00280030: b"DS", 0x00281054: b"LO", 0x00282110: b"CS",
}  # fmt: skip


def break_object(rng: Rng, draft: Draft, kind: str) -> bytes:
    """The file with one kind of damage, or with a second one on top."""
    late = _APPLY[kind](rng, draft)
    if kind not in _BYTES and rng.random() < 0.25:
        _APPLY[rng.choice(tuple(k for k in _APPLY if k not in _BYTES))](rng, draft)
    data = draft.encode()
    return late(data) if late is not None else data


def kinds() -> tuple[str, ...]:
    """The names of the ways to break an object."""
    return tuple(_APPLY)


# --- bytes, wherever they stand ---


def _flip(rng: Rng, _draft: Draft) -> Callable[[bytes], bytes]:
    def late(data: bytes) -> bytes:
        broken = bytearray(data)
        low, high = rng.choice(((0, len(data)), (0, min(3000, len(data))), (132, len(data))))
        for _ in range(rng.choice((1, 1, 2, 4, 16, 64))):
            if low < high:
                broken[rng.randrange(low, high)] = rng.choice(
                    (0, 255, 127, 128, rng.randrange(256))
                )
        return bytes(broken)

    return late


def _cut(rng: Rng, _draft: Draft) -> Callable[[bytes], bytes]:
    return lambda data: data[: rng.randrange(len(data) + 1)]


def _splice(rng: Rng, _draft: Draft) -> Callable[[bytes], bytes]:
    def late(data: bytes) -> bytes:
        for _ in range(rng.choice((1, 1, 3))):
            at, span = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 8, 100, 5000))
            how = rng.randrange(4)
            if how == 0:
                data = data[:at] + data[at + span :]
            elif how == 1:
                data = data[:at] + rng.randbytes(span) + data[at:]
            elif how == 2:
                data = data[:at] + data[at : at + span] * rng.choice((2, 3, 20)) + data[at + span :]
            else:
                other = rng.randrange(len(data) + 1)
                data = data[:at] + data[other : other + span] + data[at + span :]
        return data

    return late


# --- elements ---


def _some(rng: Rng, draft: Draft) -> Part | None:
    return rng.choice(draft.parts) if draft.parts else None


def _lengths(rng: Rng, draft: Draft) -> None:
    for _ in range(rng.choice((1, 1, 2, 5))):
        group = draft.meta if draft.meta and rng.random() < 0.1 else draft.parts
        if not group:
            return
        part = rng.choice(group)
        true = len(part.value)
        part.stated = rng.choice(
            (true + 1, true - 1, true + 2, true - 2, 2 * true, true // 2, *_LENGTHS_WIDE)
        )


def _vrs(rng: Rng, draft: Draft) -> None:
    for _ in range(rng.choice((1, 1, 3, 10))):
        part = _some(rng, draft)
        if part is not None:
            part.vr = rng.choice(_VRS) if part.vr is not None or rng.random() < 0.3 else None


def _tags(rng: Rng, draft: Draft) -> None:
    for _ in range(rng.choice((1, 2, 5))):
        if len(draft.parts) < 2:
            return
        how, at = rng.randrange(6), rng.randrange(len(draft.parts))
        part = draft.parts[at]
        if how == 0:
            part.tag = rng.choice((0, PIXEL_DATA, 0x7FE00001, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD))
        elif how == 1:
            part.tag = rng.choice((part.tag ^ 0x10000, rng.getrandbits(32), 0x00020010, 0x00080005))
        elif how == 2:
            draft.parts.insert(rng.randrange(len(draft.parts)), Part(part.tag, part.vr, part.value))
        elif how == 3:
            other = rng.randrange(len(draft.parts))
            draft.parts[at], draft.parts[other] = draft.parts[other], part
        elif how == 4:
            del draft.parts[at]
        else:
            stray = Part(rng.choice((0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD)), None, b"")
            draft.parts[at:at] = [stray] * rng.choice((1, 2, 500))


def _values(rng: Rng, draft: Draft) -> None:
    for _ in range(rng.choice((1, 2, 4))):
        part = _some(rng, draft)
        if part is None or part.tag == PIXEL_DATA:
            continue
        part.value = rng.choice(
            (b"", rng.choice(_NUMBERS), rng.choice(_TEXTS), rng.randbytes(rng.choice((1, 4, 64))))
        )
        part.stated = None


def _numbers(rng: Rng, draft: Draft) -> None:
    for tag, vr in rng.sample(sorted({**_TIMES, 0x00280008: b"IS", 0x00280030: b"DS"}.items()), 3):
        draft.put(tag, vr, rng.choice(_NUMBERS))
    if rng.random() < 0.2:
        many = b"\\".join([rng.choice((b"33", b"1e300", b"0", b"-5"))] * rng.choice((5, 3000)))
        draft.put(0x00181065, b"DS", many)


def _texts(rng: Rng, draft: Draft) -> None:
    draft.put(0x00080005, b"CS", rng.choice(_CHARACTER_SETS))
    for tag, vr in rng.sample(sorted(_OTHERS.items()), 4):
        draft.put(tag, vr, rng.choice(_TEXTS))


def _uids(rng: Rng, draft: Draft) -> None:
    for tag in rng.sample((0x00080016, 0x00080018, 0x0020000D, 0x0020000E), rng.choice((1, 1, 2))):
        draft.put(tag, b"UI", rng.choice(_UIDS))


def _meta(rng: Rng, draft: Draft) -> None:
    how = rng.randrange(6)
    if how == 0:
        draft.preamble = rng.choice((b"", rng.randbytes(128) + b"DICM", bytes(128), bytes(500)))
    elif how == 1:
        draft.meta = []
    elif draft.meta and how == 2:
        del draft.meta[rng.randrange(len(draft.meta))]
    elif draft.meta and how == 3:
        part = rng.choice(draft.meta)
        part.value = rng.choice((b"", rng.choice(_UIDS), rng.randbytes(4)))
    elif draft.meta:
        first = draft.meta[0]
        first.value = struct.pack("<L", rng.choice((0, 1, 200, 0xFFFFFFFF, 0x7FFFFFFF, 100000)))


def _syntax(rng: Rng, draft: Draft) -> None:
    for part in draft.meta:
        if part.tag == 0x00020010:
            part.value = rng.choice(_SYNTAXES)
            part.value += b"\0" * (len(part.value) % 2)


# --- pixels ---


def _geometry(rng: Rng, draft: Draft) -> None:
    for _ in range(rng.choice((1, 1, 2, 3))):
        how = rng.randrange(8)
        if how == 0:
            draft.put(0x00280004, b"CS", rng.choice(_PHOTOMETRIC))
        elif how == 1:
            draft.put(0x00280008, b"IS", rng.choice((b"0", b"1", b"2", b"100000", b"99999", b"65")))
        else:
            tag = rng.choice(tuple(_GEOMETRY))
            old = draft.get(tag)
            near = (
                struct.unpack(f"{draft.order}H", old.value[:2])[0]
                if old and len(old.value) > 1
                else 8
            )
            size = rng.choice((*_SIZES, near + 1, near - 1, near * 2, near // 2))
            draft.put(tag, b"US", draft.number(size))


def _fragments(rng: Rng, draft: Draft) -> None:
    pixels = draft.get(PIXEL_DATA)
    if pixels is None or pixels.stated != UNDEFINED:
        _native(rng, draft)
        return
    found = items(pixels.value)
    if not found:
        return
    how, at = rng.randrange(9), rng.randrange(len(found))
    if how == 0:
        found[0] = b"".join(
            struct.pack("<L", rng.choice((0, 1, 8, 100, 0x7FFFFFFF, UNDEFINED)))
            for _ in range(rng.choice((1, len(found), 300)))
        )
    elif how == 1:
        del found[at]
    elif how == 2:
        found[at:at] = [found[at]] * rng.choice((1, 5, 2000))
    elif how == 3:
        found[at] = rng.choice((b"", b"\0", rng.randbytes(200), found[at][: len(found[at]) // 2]))
    elif how == 4:
        rng.shuffle(found)
    elif how == 5:
        found[1:] = [b"".join(found[1:])]
    elif how == 6:
        found[1:] = [f[n : n + 20] for f in found[1:] for n in range(0, len(f), 20)]
    pixels.value = fragments_value(found)
    if how == 7:
        lie = struct.pack("<L", rng.choice(_LENGTHS_WIDE))
        place = pixels.value.find(b"\xfe\xff\x00\xe0", rng.randrange(len(pixels.value)))
        if place >= 0:
            pixels.value = pixels.value[: place + 4] + lie + pixels.value[place + 8 :]
    elif how == 8:
        pixels.value = pixels.value[: -rng.choice((1, 4, 8, 12))]
        pixels.stated = rng.choice((UNDEFINED, len(pixels.value), 0))
    if rng.random() < 0.1:
        offsets = b"".join(struct.pack("<Q", rng.choice((0, 2**63, 8))) for _ in range(5))
        draft.put(0x7FE00001, b"OV", offsets)


def _native(rng: Rng, draft: Draft) -> None:
    pixels = draft.get(PIXEL_DATA)
    if pixels is None:
        return
    pixels.vr = None if draft.implicit else rng.choice((b"OB", b"OW", b"UN", b"OF", b"SQ", b"US"))
    pixels.stated = rng.choice((None, *_LENGTHS_WIDE, len(pixels.value) - 1))
    if rng.random() < 0.3:
        pixels.value = pixels.value[: rng.randrange(len(pixels.value) + 1)]


def _codestream(rng: Rng, draft: Draft) -> None:
    """Damage within a frame's code stream, most often in its head."""
    pixels = draft.get(PIXEL_DATA)
    found = items(pixels.value) if pixels is not None and pixels.stated == UNDEFINED else []
    if pixels is None or len(found) < 2:
        _native(rng, draft)
        return
    every = rng.random() < 0.5
    for at in range(1, len(found)) if every else (rng.randrange(1, len(found)),):
        found[at] = _broken_stream(rng, found[at])
    pixels.value = fragments_value(found)


def _broken_stream(rng: Rng, stream: bytes) -> bytes:
    broken = bytearray(stream)
    if len(broken) < 80:
        return rng.randbytes(100)
    how = rng.randrange(8)
    if how == 0:  # the head: sizes, components, tables
        for _ in range(rng.choice((1, 2, 5))):
            broken[rng.randrange(2, 80)] = rng.choice((0, 1, 2, 255, rng.randrange(256)))
    elif how == 1:  # markers: one becomes another
        marks = [n for n in range(len(broken) - 1) if broken[n] == 0xFF and broken[n + 1] > 0x4E]
        if marks:
            at = rng.choice(marks[:40])
            broken[at + 1] = rng.choice(
                (0xC0, 0xC2, 0xC3, 0xC4, 0xD8, 0xD9, 0xDA, 0xDE, 0xF7, 0x51, 0x52, 0x93, 0x90, 0xFF)
            )
    elif how == 2:  # a segment's length
        marks = [n for n in range(len(broken) - 4) if broken[n] == 0xFF and broken[n + 1] >= 0x51]
        if marks:
            at = rng.choice(marks[:40])
            broken[at + 2 : at + 4] = struct.pack(">H", rng.choice((0, 1, 2, 3, 0xFFFF, 0x8000)))
    elif how == 3:  # a whole segment twice or not at all
        at, span = rng.randrange(2, len(broken)), rng.choice((4, 20, 100))
        broken[at:at] = broken[at : at + span] if rng.random() < 0.5 else b""
    elif how == 4:
        del broken[rng.randrange(len(broken)) :]
    elif how == 5:  # what is coded
        for _ in range(rng.choice((1, 10, 100))):
            broken[rng.randrange(len(broken) // 3, len(broken))] = rng.randrange(256)
    elif how == 6:  # absurd sizes
        size = rng.choice((0, 1, 0xFFFF, 0x7FFFFFFF, UNDEFINED, 0x10000, 5))
        at = rng.choice(list(range(2, min(70, len(broken) - 4))))
        broken[at : at + 4] = struct.pack(">L", size)
    else:
        return rng.randbytes(4) + bytes(broken)
    return bytes(broken)


def _palette(rng: Rng, draft: Draft) -> None:
    draft.put(0x00280004, b"CS", b"PALETTE COLOR ")
    draft.put(0x00280002, b"US", draft.number(1))
    for n in range(3):
        words = [rng.choice((0, 1, 2, 255, 256, 65535)) for _ in range(3)]
        if rng.random() < 0.8:
            value = struct.pack(f"{draft.order}3H", *words)[: rng.choice((6, 6, 4, 0))]
            draft.put(0x00281101 + n, b"US", value)
        data = rng.choice((b"", rng.randbytes(512), rng.randbytes(3), bytes(131072)))
        if rng.random() < 0.4:
            part = draft.get(0x00281201 + n)
            if part is not None:
                draft.parts.remove(part)
            segments = [rng.choice((0, 1, 2, 3)), rng.choice((2, 65535)), rng.choice((1, 65535))]
            packed = struct.pack(f"{draft.order}3H", *segments) * rng.choice((1, 3, 400))
            draft.put(0x00281221 + n, b"OW", packed)
        else:
            draft.put(0x00281201 + n, b"OW", data)


def _deflate(rng: Rng, draft: Draft) -> Callable[[bytes], bytes] | None:
    for part in draft.meta:
        if part.tag == 0x00020010:
            part.value = b"1.2.840.10008.1.2.1.99"
    draft.deflated = not draft.implicit
    how = rng.randrange(5)
    if how == 0:
        draft.tail += bytes(rng.choice((1_000_000, 30_000_000)))
    elif how == 1:
        big = Part(rng.choice((0x00091001, 0x00204000, 0x00420011)), b"OB", bytes(40_000_000))
        draft.parts.insert(rng.randrange(len(draft.parts) + 1), big)
    elif how == 2:
        return lambda data: data[: rng.randrange(max(1, len(data) - 1000), len(data) + 1)]
    elif how == 3:
        draft.deflate_tail = rng.randbytes(100)
    else:
        at = rng.random()

        def late(data: bytes) -> bytes:
            broken = bytearray(data)
            place = min(len(broken) - 1, 300 + int(at * (len(broken) - 300)))
            broken[place] ^= 0x55
            return bytes(broken)

        return late
    return None


# --- sequences ---


def _sequences(rng: Rng, draft: Draft) -> None:
    how = rng.randrange(9)
    tag = rng.choice((_REGIONS, 0x00091010, 0x200D3016, 0x0008114A, 0x00081140, 0x0040A730))
    order = draft.order
    item = struct.pack(f"{order}HHL", 0xFFFE, 0xE000, 0)
    open_item = struct.pack(f"{order}HHL", 0xFFFE, 0xE000, UNDEFINED)
    end_item = struct.pack(f"{order}HHL", 0xFFFE, 0xE00D, 0)
    end = struct.pack(f"{order}HHL", 0xFFFE, 0xE0DD, 0)
    if how == 0:  # deep, of undefined length
        depth = rng.choice((5, 40, 300, 2000))
        head = Part(tag, None if draft.implicit else b"SQ", b"", UNDEFINED).encode(order)
        value = (open_item + head) * depth + rng.choice((b"", (end + end_item) * depth))
        draft.put(tag, b"SQ", value + end, UNDEFINED)
    elif how == 1:  # deep, of defined length
        value = b""
        for _ in range(rng.choice((5, 40, 300))):
            inner = Part(tag, None if draft.implicit else b"SQ", value).encode(order)
            value = struct.pack(f"{order}HHL", 0xFFFE, 0xE000, len(inner)) + inner
        draft.put(tag, b"SQ", value)
    elif how == 2:  # many empty items
        draft.put(tag, b"SQ", item * rng.choice((10, 1000, 60_000)))
    elif how == 3:
        draft.put(tag, b"SQ", item * rng.choice((10, 60_000)) + end, UNDEFINED)
    elif how == 4:  # no end
        draft.put(tag, b"SQ", rng.choice((item, open_item, b"", end_item)), UNDEFINED)
    elif how == 5:  # an item that reaches beyond its sequence
        long = struct.pack(f"{order}HHL", 0xFFFE, 0xE000, rng.choice(_LENGTHS_WIDE))
        draft.put(tag, b"SQ", long + rng.randbytes(50))
    elif how == 6:  # a sequence in VR UN, or a value in VR SQ
        part = draft.get(_REGIONS) or _some(rng, draft)
        if part is not None and part.vr is not None:
            part.vr = rng.choice((b"UN", b"SQ", b"OB", b"LO"))
    elif how == 7:
        head = Part(0x00080018, None if draft.implicit else b"UI", rng.choice(_UIDS)).encode(order)
        long = struct.pack(f"{order}HHL", 0xFFFE, 0xE000, len(head)) + head
        draft.put(tag, b"SQ", long * rng.choice((1, 2000)))
    else:
        part = draft.get(_REGIONS)
        if part is not None:
            part.value = part.value[: rng.randrange(len(part.value) + 1)]
            part.stated = rng.choice((part.stated, None, UNDEFINED))


def _regions(rng: Rng, draft: Draft) -> None:
    """Regions that no screen has."""
    order, inner = draft.order, []
    for _ in range(rng.choice((1, 1, 2, 4, 300))):
        elements = []
        for tag in range(0x00186018, 0x00186020, 2):
            number = rng.choice((0, 1, 50, 95, 127, 200, 65535, 0x7FFFFFFF, UNDEFINED))
            elements.append(Part(tag, b"UL", struct.pack(f"{order}L", number)))
        small = {0x00186012: _KINDS, 0x00186014: _KINDS, 0x00186024: _UNITS, 0x00186026: _UNITS}
        elements += [Part(t, b"US", draft.number(rng.choice(of))) for t, of in small.items()]
        for tag in (0x0018602C, 0x0018602E):
            delta = rng.choice((0.04, 0.0, -0.04, float("nan"), float("inf"), 1e300, 1e-300))
            elements.append(Part(tag, b"FD", struct.pack(f"{order}d", delta)))
        if rng.random() < 0.3:
            odd = rng.choice(elements)
            odd.vr, odd.value = (
                rng.choice((b"DS", b"IS", b"SL", b"LO", b"OB")),
                rng.choice(_NUMBERS),
            )
        elements.sort(key=lambda part: part.tag)
        for element in elements:
            if draft.implicit:
                element.vr = None
        body = b"".join(element.encode(order) for element in elements)
        inner.append(struct.pack(f"{order}HHL", 0xFFFE, 0xE000, len(body)) + body)
    draft.put(_REGIONS, b"SQ", b"".join(inner))


def _private(rng: Rng, draft: Draft) -> None:
    """Private elements in front of the pixels, many or large."""
    how = rng.randrange(3)
    vr = None if draft.implicit else rng.choice((b"OB", b"UN", b"LO", b"DS", b"UT"))
    if how == 0:
        value = rng.choice((b"1\\", b"\0", b"A")) * rng.choice((1000, 500_000))
        if vr is not None and vr not in LONG_VRS:
            value = value[:65534]
        draft.parts.insert(len(draft.parts) // 2, Part(0x00291010, vr, value))
    elif how == 1:
        at = next((n for n, p in enumerate(draft.parts) if p.tag >= PIXEL_DATA), len(draft.parts))
        many = [
            Part(0x00290000 + n, vr, b"") for n in range(0x1000, 0x1000 + rng.choice((5, 3000)))
        ]
        draft.parts[at:at] = many
    else:
        head = struct.pack(f"{draft.order}HHL", 0xFFFE, 0xE000, 1_000_000) + bytes(1_000_000)
        end = struct.pack(f"{draft.order}HHL", 0xFFFE, 0xE0DD, 0)
        shown = None if draft.implicit else rng.choice((b"SQ", b"UN", b"OB"))
        large = Part(0x200D3016, shown, head + rng.choice((end, b"")), UNDEFINED)
        draft.parts.insert(len(draft.parts) // 2, large)


_BYTES: Final = ("flip", "cut", "splice")
_APPLY: Final[dict[str, Callable[[Rng, Draft], Callable[[bytes], bytes] | None]]] = {
    "flip": _flip,
    "cut": _cut,
    "splice": _splice,
    "lengths": _lengths,
    "vrs": _vrs,
    "tags": _tags,
    "values": _values,
    "numbers": _numbers,
    "texts": _texts,
    "uids": _uids,
    "meta": _meta,
    "syntax": _syntax,
    "geometry": _geometry,
    "fragments": _fragments,
    "codestream": _codestream,
    "palette": _palette,
    "deflate": _deflate,
    "sequences": _sequences,
    "regions": _regions,
    "private": _private,
}
