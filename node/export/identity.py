"""The words of an object's identity: what must not be found in a copy of it.

They are gathered from what Table E.1-1 names, at every depth. A description ("Adult echo") is not
one of them: it goes, too, but its words are everybody's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from pydicom._uid_dict import UID_dictionary
from pydicom.charset import python_encoding
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

_SHORTEST: Final = 3  # letters of a name that can be looked for
_SHORTEST_VALUE: Final = 4
_LONG: Final = 6  # letters: such a word is looked for within others, too
_SHORTEST_IN_HEADER: Final = 4  # bytes: less turns up in numbers by chance
_SHORTEST_IN_PIXELS: Final = 8
_PARTS: Final = re.compile(r"[\^=\\\s,;.()/\"'-]+")
_VALUES: Final = frozenset(("AE", "LO", "LT", "SH", "ST", "UC", "UR", "UT"))
_EVERYBODYS: Final = re.compile(
    r"Description|Comments|Protocol|Reason|Label|Ethnic|Allerg|Alert|Contrast|Occupation|Race"
    r"|PatientState|SpecialNeeds|Pregnan|ProcessingDescription|Agent|Timezone"
)
_CODECS: Final = ("utf-8", "latin-1")


@dataclass(frozen=True)
class Identity:
    """What to look for. ``words`` in lower case; ``uids`` as they stand."""

    words: frozenset[str]
    uids: frozenset[str]
    codecs: tuple[str, ...] = _CODECS
    _find: re.Pattern[str] | None = field(default=None, repr=False)

    def is_in(self, element: DataElement) -> bool:
        """Whether any of an attribute's values holds a word of it."""
        value = element.value
        values = value if _is_many(value) else [value]
        if element.VR in ("DS", "IS"):
            # A patient's number may stand where a number belongs; but short ones are everywhere.
            return any(len(str(one)) > 5 and str(one) in self.words for one in values)
        if element.VR == "UI":
            return any(str(one) in self.uids for one in values)
        return any(self.is_in_text(str(one)) for one in values if isinstance(one, str))

    def is_in_text(self, text: str) -> bool:
        """Whether a text holds a word of it."""
        if self._find is not None and self._find.search(_plain(text)):
            return True
        return any(uid in self.uids for uid in re.findall(r"[0-9]+(?:\.[0-9]+)+", text))

    def in_bytes(self, exempt: str) -> re.Pattern[bytes] | None:
        """What to look for in a header's bytes; words of ``exempt`` may be there."""
        allowed = _plain(exempt)
        found = [
            _bounded(data.decode("latin-1")).encode("latin-1")
            for data in sorted(self._encoded(), key=lambda data: (-len(data), data))
            if len(data) >= _SHORTEST_IN_HEADER and not _is_word_of(data, allowed)
        ]
        parts = [b"|".join(found)] if found else []
        if self.uids:
            uids = b"|".join(re.escape(uid.encode()) for uid in sorted(self.uids))
            parts.append(rb"(?<![0-9.])(?:" + uids + rb")(?![0-9.])")
        return re.compile(b"|".join(parts), re.IGNORECASE) if parts else None

    def in_pixels(self) -> tuple[bytes, ...]:
        """What to look for among pixels, where short words turn up by chance."""
        found = self._encoded() | {uid.encode() for uid in self.uids}
        return tuple(sorted(data for data in found if len(data) >= _SHORTEST_IN_PIXELS))

    def _encoded(self) -> set[bytes]:
        found = set()
        for word in self.words:
            for variant in (word, word.upper(), word.title(), word.capitalize()):
                for codec in self.codecs:
                    with suppress(UnicodeEncodeError, LookupError):
                        found.add(variant.encode(codec))
        return found


def identity_of(header: Dataset, tags: Iterable[int], *, dates: bool) -> Identity:
    """The identity in a header: the values of ``tags``, of names and of UIDs at every depth.

    ``dates``: days other than that of birth are part of it, too.
    """
    named = frozenset(tags)
    words: set[str] = set()
    uids: set[str] = set()
    for element in _everything(header):
        for value in element.value if _is_many(element.value) else [element.value]:
            text = str(value).strip() if value is not None else ""
            if not text:
                continue
            if element.VR == "UI":
                uids |= {text} - set(UID_dictionary)
            elif element.VR == "PN":
                words |= {part for part in _PARTS.split(_plain(text)) if _is_telling(part)}
            elif int(element.tag) not in named:
                continue
            elif element.VR == "DA":
                if dates or keyword_for_tag(element.tag) == "PatientBirthDate":
                    words.add(text)
            elif (
                element.VR in _VALUES
                and not _EVERYBODYS.search(keyword_for_tag(element.tag))
                and (len(text) >= _SHORTEST_VALUE or not text.isascii())
            ):
                words.add(_plain(text))
    find = None
    if words:
        longest_first = sorted(words, key=lambda word: (-len(word), word))
        find = re.compile("|".join(_bounded(word) for word in longest_first))
    return Identity(
        words=frozenset(words),
        uids=frozenset(uids),
        codecs=(*_CODECS, *_codecs_of(header)),
        _find=find,
    )


def _everything(dataset: Dataset) -> Iterator[DataElement]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _everything(item)
        else:
            yield element


def _is_many(value: Any) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, str | bytes) and not _is_name(value)


def _is_name(value: Any) -> bool:
    return type(value).__name__ == "PersonName"


def _is_telling(part: str) -> bool:
    return len(part) >= (_SHORTEST if part.isascii() else 2) or (
        len(part) == 1 and ord(part) >= 0x3000
    )


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _codecs_of(header: Dataset) -> tuple[str, ...]:
    stated = header.get("SpecificCharacterSet")
    if not stated:
        return ()
    names = [stated] if isinstance(stated, str) else list(stated)
    return tuple(python_encoding[name] for name in names if name in python_encoding)


def _bounded(word: str) -> str:
    """A pattern for a word: a long one anywhere, a short one not within a longer word.

    A number is never looked for within another: new UIDs hold all numbers by chance.
    """
    pattern = re.escape(word)
    if len(word) >= _LONG and not word.isdecimal():
        return pattern
    before, after = (
        "[0-9]" if one.isdecimal() else "[A-Za-z]" if one.isascii() else ""
        for one in (word[0], word[-1])
    )
    return f"{f'(?<!{before})' if before else ''}{pattern}{f'(?!{after})' if after else ''}"


def _is_word_of(data: bytes, allowed: str) -> bool:
    return data.isascii() and data.decode().casefold() in allowed
