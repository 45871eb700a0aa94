"""ECG objects of DICOM: 12-lead, General, Ambulatory and General 32-bit ECG Waveform Storage.

An object holds multiplex groups (PS3.3 C.10.9), each with channels sampled together. The rhythm is
read from the original ones, the cart's median beat from a derived one. A sample becomes millivolts
by sensitivity, correction factor and baseline (C.10.9.1.4); one that equals the padding value is a
gap. Where channels were sampled one after another, they are moved by whole samples; what is left of
a skew, under half a sample, is ignored.

Groups that each hold some of the leads are laid on one time axis by their offsets. What was not
recorded at the same time stays a gap: nothing is moved to where it was not measured.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    AmbulatoryECGWaveformStorage,
    General32bitECGWaveformStorage,
    GeneralECGWaveformStorage,
    TwelveLeadECGWaveformStorage,
)

from models._header import UNREADABLE, number, shown, text
from models.ecg.leads import lead_of_code, lead_of_words, millivolts_of, with_derived
from models.ecg.recording import (
    INDEPENDENT,
    LEADS,
    LOWEST_RATE_HZ,
    Doubt,
    Ecg,
    EcgError,
    Measured,
    Strip,
    Trouble,
)

ECG_CLASSES: Final = (
    TwelveLeadECGWaveformStorage,
    GeneralECGWaveformStorage,
    AmbulatoryECGWaveformStorage,
    General32bitECGWaveformStorage,
)
"""The SOP classes that are read."""

MOST_SAMPLES: Final = 2**24
"""Of a lead: eighteen hours at 250 Hz."""

_TYPES: Final = {  # PS3.3 C.10.9.1.5: interpretation, bits allocated
    ("SB", 8): "i1",
    ("UB", 8): "u1",
    ("SS", 16): "i2",
    ("US", 16): "u2",
    ("SL", 32): "i4",
    ("UL", 32): "u4",
    ("SV", 64): "i8",
    ("UV", 64): "u8",
}
_SPEECH: Final = {"MB": "mu-law", "AB": "A-law"}
_BEAT_LABEL: Final = re.compile(r"MEDIAN|AVERAGE|MEAN|TEMPLATE|REPRESENTATIVE|BEAT", re.IGNORECASE)
_LONGEST_BEAT_S: Final = 2.5
_FARTHEST_S: Final = 60.0  # groups further apart are not one recording
_MOST_STATEMENTS, _LONGEST_STATEMENT = 40, 200


@dataclass(frozen=True, kw_only=True, eq=False)
class _Group:
    """One multiplex group: ``rows`` is mV of each lead, ``channels`` where it stands, from 1 on."""

    place: int
    rate_hz: float
    offset_s: float
    samples: int
    original: bool
    is_beat: bool
    rows: dict[str, NDArray[np.float32]] = field(repr=False)
    channels: dict[str, int]
    troubles: tuple[Trouble, ...]

    @property
    def is_whole(self) -> bool:
        """Whether all twelve leads are here, or follow from those that are."""
        limbs = set(self.rows) & set(LEADS[:6])
        return len(limbs) >= 2 and set(self.rows) >= set(INDEPENDENT) - {"I", "II"}


def read_dicom(dataset: Dataset) -> tuple[Ecg, tuple[Trouble, ...]]:
    """The recording, and what reading it brought up. Its quality is not looked at here.

    Raises:
        EcgError: this is no ECG, or nothing in it can be read; with the tag, where it stands, and
            what to do.
    """
    sop_class = _text(dataset, "SOPClassUID")
    if sop_class and sop_class not in ECG_CLASSES:
        raise EcgError(
            f"SOP Class UID (0008,0016) is {shown(sop_class)}, which is no ECG waveform: "
            "send 12-lead, General, Ambulatory or General 32-bit ECG objects"
        )
    items = _items(dataset, "WaveformSequence")
    if not items:
        raise EcgError(
            "Waveform Sequence (5400,0100) is missing or empty: the object holds no ECG; "
            "send it again from the cart"
        )
    little = _is_little(dataset)
    groups = [_group(item, place, little=little) for place, item in enumerate(items, start=1)]
    rhythm = _rhythm_groups(groups)
    strip, troubles = _laid_together(rhythm, groups)
    beats = [group for group in groups if group.is_beat and group not in rhythm]
    beat = max(beats, key=lambda group: len(group.rows), default=None)
    ecg = Ecg(
        rhythm=strip,
        median=_strip([beat], beat) if beat is not None else None,
        measured=_measured(dataset),
    )
    return ecg, troubles


# Groups


def _group(item: Dataset, place: int, *, little: bool) -> _Group:
    where = f"group {place} of Waveform Sequence (5400,0100)"
    raw, gaps, rate_hz = _samples(item, where, little=little)
    channels = _items(item, "ChannelDefinitionSequence")
    if len(channels) != raw.shape[0]:
        raise EcgError(
            f"{where}: Number of Waveform Channels (003A,0005) is {raw.shape[0]}, but Channel "
            f"Definition Sequence (003A,0200) describes {len(channels)}: which lead is which "
            "cannot be told; have the cart's DICOM export corrected"
        )
    rows: dict[str, NDArray[np.float32]] = {}
    places: dict[str, int] = {}
    twice: list[str] = []
    unsure: dict[str, list[str]] = {}
    for at, channel in enumerate(channels):
        lead = _lead(channel)
        if lead is None or lead[0] in rows:
            twice += [lead[0]] if lead else []
            continue
        name, sign = lead
        scale, baseline, reasons = _scale(channel)
        for reason in reasons:
            unsure.setdefault(reason, []).append(name)
        row = raw[at].astype(np.float64) * (sign * scale) + sign * baseline
        row[gaps[at]] = np.nan
        rows[name] = _unskewed(row, channel, rate_hz).astype(np.float32)
        places[name] = at + 1
    label = _text(item, "MultiplexGroupLabel")
    original = _text(item, "WaveformOriginality").upper() != "DERIVED"
    length_s = raw.shape[1] / rate_hz
    is_beat = length_s <= _LONGEST_BEAT_S and (bool(_BEAT_LABEL.search(label)) or not original)
    return _Group(
        place=place,
        rate_hz=rate_hz,
        offset_s=(_number(item, "MultiplexGroupTimeOffset") or 0.0) / 1000.0,
        samples=raw.shape[1],
        original=original,
        is_beat=is_beat,
        rows=rows,
        channels=places,
        troubles=(*_named_twice(twice, where), *_unsure_scale(unsure)),
    )


def _named_twice(names: Sequence[str], where: str) -> Iterator[Trouble]:
    for name in dict.fromkeys(names):
        yield Trouble(
            doubt=Doubt.IDENTITY,
            words=f"several channels of {where} are called {name}: the first is taken",
            leads=(name,),
        )


def _unsure_scale(unsure: Mapping[str, Sequence[str]]) -> Iterator[Trouble]:
    for reason, names in unsure.items():
        yield Trouble(
            doubt=Doubt.SCALE,
            words=f"the voltages of {', '.join(names)} cannot be relied on: {reason}",
            leads=tuple(names),
        )


def _samples(
    item: Dataset, where: str, *, little: bool
) -> tuple[NDArray[np.generic], NDArray[np.bool_], float]:
    """(channels, samples) as stored, where there is padding, and the rate in Hz."""
    channels = _count(item, "NumberOfWaveformChannels", "(003A,0005)", where)
    samples = _count(item, "NumberOfWaveformSamples", "(003A,0010)", where)
    rate_hz = _number(item, "SamplingFrequency")
    if rate_hz is None or not LOWEST_RATE_HZ <= rate_hz <= 1e6:
        raise EcgError(
            f"{where}: Sampling Frequency (003A,001A) is "
            f"{'missing' if rate_hz is None else format(rate_hz, 'g')}, "
            f"at which no ECG is sampled ({LOWEST_RATE_HZ:g} Hz are the least); "
            "have the cart's DICOM export corrected"
        )
    if samples > MOST_SAMPLES:
        raise EcgError(
            f"{where}: Number of Waveform Samples (003A,0010) is {samples}, and no more than "
            f"{MOST_SAMPLES} are read: send a shorter stretch of the recording"
        )
    kind = _sample_type(item, where).newbyteorder("<" if little else ">")
    data = _bytes(item, "WaveformData")
    wanted = channels * samples * kind.itemsize
    if len(data) < wanted:
        raise EcgError(
            f"{where}: Waveform Data (5400,1010) holds {len(data)} bytes where {channels} channels "
            f"of {samples} samples take {wanted}: it was cut off; send the object again"
        )
    stored = np.frombuffer(data, kind, count=channels * samples).reshape(samples, channels).T
    return stored, _is_padding(item, stored, kind), rate_hz


def _sample_type(item: Dataset, where: str) -> np.dtype[np.generic]:
    interpretation = _text(item, "WaveformSampleInterpretation").upper()
    bits = _number(item, "WaveformBitsAllocated")
    if interpretation in _SPEECH:
        raise EcgError(
            f"{where}: Waveform Sample Interpretation (5400,1006) is {interpretation}, "
            f"{_SPEECH[interpretation]} companding of speech, which no ECG may have (PS3.3 A.34): "
            "have the cart store signed integers"
        )
    kind = _TYPES.get((interpretation, int(bits or 0)))
    if kind is None:
        raise EcgError(
            f"{where}: Waveform Sample Interpretation (5400,1006) is "
            f"{shown(interpretation) or 'missing'} and Waveform Bits Allocated (5400,1004) "
            f"{'missing' if bits is None else format(bits, 'g')}, which do not go together: "
            "have the cart's DICOM export corrected"
        )
    return np.dtype(kind)


def _is_padding(
    item: Dataset, stored: NDArray[np.generic], kind: np.dtype[np.generic]
) -> NDArray[np.bool_]:
    """Where samples equal Waveform Padding Value (5400,100A), which is encoded as they are."""
    padding = _bytes(item, "WaveformPaddingValue")
    if len(padding) < kind.itemsize:
        return np.zeros(stored.shape, np.bool_)
    return np.asarray(stored == np.frombuffer(padding, kind, count=1)[0], np.bool_)


def _count(item: Dataset, keyword: str, tag: str, where: str) -> int:
    found = _number(item, keyword)
    if found is None or found < 1:
        words = " ".join(re.findall("[A-Z][a-z]*", keyword))
        raise EcgError(
            f"{where}: {words} {tag} is {'missing' if found is None else int(found)}, so it holds "
            "no signal; send the object again, or have the cart's DICOM export corrected"
        )
    return int(found)


# Channels


def _lead(channel: Dataset) -> tuple[str, int] | None:
    """(lead, sign) of a channel, from its code, else from words; None where it is no such lead."""
    for source in _items(channel, "ChannelSourceSequence"):
        meaning = lead_of_words(_text(source, "CodeMeaning"))
        coded = lead_of_code(_text(source, "CodeValue"))
        private = _text(source, "CodingSchemeDesignator").upper().startswith("99")
        if private and meaning is not None:
            return meaning, 1  # 2:1 of a private scheme may be anything
        if coded is not None:
            return coded
        if meaning is not None:
            return meaning, 1
    label = lead_of_words(_text(channel, "ChannelLabel"))
    return (label, 1) if label is not None else None


def _scale(channel: Dataset) -> tuple[float, float, list[str]]:
    """mV for one step, mV at zero, and why what the object says of them cannot be relied on."""
    sensitivity = _number(channel, "ChannelSensitivity")
    factor = _number(channel, "ChannelSensitivityCorrectionFactor")
    units = _items(channel, "ChannelSensitivityUnitsSequence")
    unit = _text(units[0], "CodeValue") if units else ""
    of_unit = millivolts_of(unit)
    if of_unit is None and units:
        of_unit = millivolts_of(_text(units[0], "CodeMeaning"))
    reasons = []
    if not sensitivity:
        reasons.append("Channel Sensitivity (003A,0210) is missing or zero, and 1 is taken")
    if of_unit is None:
        named = f"is {shown(unit)}, which is no voltage," if unit else "is missing,"
        reasons.append(f"Channel Sensitivity Units Sequence (003A,0211) {named} and uV is taken")
    if factor == 0:
        reasons.append("Channel Sensitivity Correction Factor (003A,0212) is zero, and 1 is taken")
    per_unit = of_unit if of_unit is not None else 1e-3
    step = (sensitivity or 1.0) * (factor or 1.0) * per_unit
    return step, (_number(channel, "ChannelBaseline") or 0.0) * per_unit, reasons


def _unskewed(row: NDArray[np.float64], channel: Dataset, rate_hz: float) -> NDArray[np.float64]:
    """The row with its samples where the group's clock has them, NaN where there are none."""
    skew = _number(channel, "ChannelSampleSkew")
    if skew is None:
        skew = (_number(channel, "ChannelTimeSkew") or 0.0) * rate_hz
    moved = round(skew) if abs(skew) < len(row) else 0
    if moved == 0:
        return row
    shifted = np.full(row.shape, np.nan)
    if moved > 0:
        shifted[moved:] = row[:-moved]
    else:
        shifted[:moved] = row[-moved:]
    return shifted


# The recording


def _rhythm_groups(groups: Sequence[_Group]) -> list[_Group]:
    """The groups that the rhythm is read from, the one that gives rate and start first."""
    able = [group for group in groups if group.rows and not group.is_beat]
    able = [group for group in able if group.original] or able
    if not able:
        able = [group for group in groups if group.rows]
    if not able:
        raise EcgError(
            "no channel in Waveform Sequence (5400,0100) names one of the twelve leads, by MDC or "
            "SCPECG code in Channel Source Sequence (003A,0208) or in words: have the cart's "
            "DICOM export corrected"
        )
    whole = [group for group in able if group.is_whole]
    if whole:
        return [max(whole, key=lambda group: (len(group.rows), group.samples / group.rate_hz))]
    main = max(able, key=lambda group: (len(group.rows), group.samples / group.rate_hz))
    others = [group for group in able if group is not main and _belongs(group, main)]
    return [main, *others]


def _belongs(group: _Group, main: _Group) -> bool:
    """Whether a group can be laid on another's time axis."""
    near = abs(group.offset_s - main.offset_s) <= _FARTHEST_S
    return near and math.isclose(group.rate_hz, main.rate_hz, rel_tol=1e-4)


def _laid_together(
    chosen: Sequence[_Group], groups: Sequence[_Group]
) -> tuple[Strip, tuple[Trouble, ...]]:
    troubles = [trouble for group in chosen for trouble in group.troubles]
    names = {name for group in chosen for name in group.rows}
    for group in groups:
        if group in chosen or group.is_beat or not set(group.rows) - names:
            continue
        leads = tuple(name for name in LEADS if name in group.rows and name not in names)
        troubles.append(
            Trouble(
                doubt=Doubt.MISSING,
                words=f"{', '.join(leads)} of group {group.place} are left out: they were sampled "
                "at another rate or time than the other leads",
                leads=leads,
            )
        )
    return _strip(chosen, chosen[0]), tuple(troubles)


def _strip(chosen: Sequence[_Group], main: _Group) -> Strip:
    """Each lead from the longest group that has it, on one time axis."""
    start_s = min(group.offset_s for group in chosen)
    starts = {group.place: round((group.offset_s - start_s) * main.rate_hz) for group in chosen}
    length = max(starts[group.place] + group.samples for group in chosen)
    millivolts = np.full((len(LEADS), length), np.nan, np.float32)
    channels = []
    for row, name in zip(millivolts, LEADS, strict=True):
        having = [group for group in chosen if name in group.rows]
        group = max(having, key=lambda one: one.samples, default=None)
        if group is not None:
            start = starts[group.place]
            row[start : start + group.samples] = group.rows[name]
        channels.append(group.channels[name] if group is main else 0)
    filled, derived = with_derived(millivolts)
    return Strip(
        millivolts=filled,
        rate_hz=main.rate_hz,
        derived=derived,
        group=main.place,
        channels=tuple(channels),
    )


# What the cart says

_INTERVALS: Final = {
    # PS3.16 CID 3228 (MDC), EN 1064 (SCPECG), LOINC
    "rr_ms": ("2:16168", "5.10.2.1-3", "RR INTERVAL"),
    "pr_ms": ("2:15872", "5.13.5-7", "8625-6", "PR INTERVAL", "P-R INTERVAL", "PQ INTERVAL"),
    "qrs_ms": ("2:16156", "5.13.5-9", "8633-0", "QRS DURATION"),
    "qt_ms": ("2:16160", "5.13.5-11", "8634-8", "QT INTERVAL", "Q-T INTERVAL"),
}


def _measured(dataset: Dataset) -> Measured:
    """The cart's own intervals and words from Waveform Annotation Sequence (PS3.3 C.10.10)."""
    intervals: dict[str, float] = {}
    statements: list[str] = []
    for note in _items(dataset, "WaveformAnnotationSequence"):
        words = _text(note, "UnformattedTextValue")
        if words and len(statements) < _MOST_STATEMENTS:
            statements.append(
                "".join(one for one in words if one.isprintable())[:_LONGEST_STATEMENT]
            )
        for concept in _items(note, "ConceptNameCodeSequence")[:1]:
            named = {_text(concept, "CodeValue"), _text(concept, "CodeMeaning").upper()}
            named |= {name.removesuffix(" GLOBAL") for name in named}
            for key, names in _INTERVALS.items():
                if key not in intervals and named & set(names):
                    value = _milliseconds(note)
                    if value is not None:
                        intervals[key] = value
    return Measured(**intervals, statements=tuple(statements))


def _milliseconds(note: Dataset) -> float | None:
    """Numeric Value (0040,A30A) in ms; None where it is absent, no time, or not above zero."""
    value = _number(note, "NumericValue")
    units = _items(note, "MeasurementUnitsCodeSequence")
    unit = _text(units[0], "CodeValue").lower() if units else "ms"
    factor = {"ms": 1.0, "s": 1000.0}.get(unit)
    if value is None or value <= 0 or factor is None:
        return None
    return value * factor


# A foreign dataset: any look at it may raise


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; empty where it is absent or none."""
    try:
        return [item for item in dataset.get(keyword) or () if isinstance(item, Dataset)]
    except UNREADABLE:
        return []


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        return text(dataset, keyword)
    except UNREADABLE:
        return ""


def _number(dataset: Dataset, keyword: str) -> float | None:
    try:
        return number(dataset, keyword)
    except UNREADABLE:
        return None


def _bytes(dataset: Dataset, keyword: str) -> bytes:
    try:
        value = dataset.get(keyword)
    except UNREADABLE:
        return b""
    return value if isinstance(value, bytes) else b""


def _is_little(dataset: Dataset) -> bool:
    """Whether the samples are little endian: all but a retired transfer syntax are."""
    return dataset.original_encoding[1] is not False
