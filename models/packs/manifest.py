"""What a pack says of itself: the schema of ``manifest.json``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from models.ecg.recording import LEADS
from models.finding import Evidence, Kind
from models.packs.errors import PackError


class PackKind(StrEnum):
    """How a pack is run."""

    VIEW = "view"  #: frames in, a probability for each view out; a clip's label by vote
    TRACING = "tracing"  #: a frame in, a probability of each structure for each pixel out
    REGRESSION = "regression"  #: a frame in, one number for each output; a clip's value is the mean
    WAVEFORM = "waveform"  #: an ECG's samples in, one number for each output


class Link(StrEnum):
    """How a raw number becomes a value; a score is always the logistic function of it."""

    LINEAR = "linear"  #: raw * scale + offset
    LOG = "log"  #: exp(raw * scale + offset)


class Join(StrEnum):
    """How the frames' values become the clip's."""

    MEAN = "mean"  #: of all frames, as in Ghorbani et al. 2020
    HIGHEST = "highest"  #: mean of the highest tenth of frames, at least one
    LOWEST = "lowest"  #: mean of the lowest tenth of frames, at least one
    EJECTION = "ejection"  #: 100 * (1 - lowest / highest): a fraction of a size that changes


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkSpec(_Strict):
    """A network of :mod:`models.networks` by name, and its keyword arguments."""

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)


class KerasFile(_Strict):
    """A network in Keras's own format, with its weights: a ``.keras`` file in the pack."""

    format: Literal["keras"]
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.keras$")]

    @property
    def name(self) -> str:
        """The file, for those who print which network a pack has."""
        return self.file

    @property
    def settings(self) -> dict[str, Any]:
        """None: the file itself says how the network is built."""
        return {}


class SavedModelFolder(_Strict):
    """A network as a TensorFlow SavedModel, with its weights: a folder in the pack.

    Its signature ``serving_default`` is called and nothing else; of several numbers that it gives
    ``output`` names the one to take.
    """

    format: Literal["saved_model"]
    folder: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    output: str | None = None

    @property
    def name(self) -> str:
        """The folder, for those who print which network a pack has."""
        return self.folder

    @property
    def settings(self) -> dict[str, Any]:
        """None: the folder itself says how the network is built."""
        return {}


def _network_form(network: Any) -> str:
    """Which of the three forms a network is written in: by its ``format``, absent for a name."""
    if isinstance(network, dict):
        return str(network.get("format", "named"))
    return str(getattr(network, "format", "named"))


Network = Annotated[
    Annotated[NetworkSpec, Tag("named")]
    | Annotated[KerasFile, Tag("keras")]
    | Annotated[SavedModelFolder, Tag("saved_model")],
    Discriminator(
        _network_form,
        custom_error_type="network_format",
        custom_error_message="format must be 'keras' or 'saved_model'; a network of echonode has a "
        "'name' and no format",
    ),
]
"""A network by name with weights beside it, or a file or folder that holds both."""


class InputSpec(_Strict):
    """What the network sees.

    ``rows`` x ``columns`` x 1, float32. Pixels are ``(grey / 255 - mean) / std``. ``frames`` are
    taken ``interval_ms`` apart from the first one on; ``interval_ms`` None means every frame.
    With ``window`` above 1 the network sees so many of them at once, (window, rows, columns,
    channels), in windows one after another; the last frame is repeated to fill the last window,
    and what the network gives for a window counts for each of its frames. Three ``channels`` are
    three times the same grey.
    """

    rows: int = Field(gt=0)
    columns: int = Field(gt=0)
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0.0)
    frames: int | None = Field(default=None, gt=0)
    interval_ms: float | None = Field(default=None, gt=0.0)
    window: int = Field(default=1, gt=0)
    channels: Literal[1, 3] = 1
    letterbox: bool = True  #: keep the aspect ratio and pad with black; otherwise stretch


class Signal(StrEnum):
    """Which part of an ECG a network sees."""

    RHYTHM = "rhythm"  #: the recording as it was taken
    MEDIAN = "median"  #: one beat, the median of all that look alike


class WaveformInput(_Strict):
    """What a network of ECGs sees: ``samples`` x leads, float32, in mV.

    The recording is brought to ``rate_hz``, and padded with zeros at both ends, or cut to its
    middle, where it is shorter or longer than ``samples``; see :mod:`models.ecg.inputs`.
    ``highpass_hz`` takes the baseline's wander away first; None leaves it to the network.
    """

    samples: int = Field(gt=0)
    rate_hz: float = Field(gt=0.0)
    leads: Annotated[tuple[str, ...], Field(min_length=1)] = LEADS
    signal: Signal = Signal.RHYTHM
    highpass_hz: float | None = Field(default=None, gt=0.0)

    @property
    def duration_s(self) -> float:
        """How much of a recording the network sees."""
        return self.samples / self.rate_hz

    @field_validator("leads")
    @classmethod
    def _known_leads(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        strangers = [lead for lead in value if lead not in LEADS]
        if strangers:
            raise ValueError(f"no lead {strangers[0]!r}; there are {', '.join(LEADS)}")
        if len(set(value)) < len(value):
            raise ValueError("a lead is there twice; keep one")
        return value

    @model_validator(mode="after")
    def _passes_something(self) -> Self:
        if self.highpass_hz is not None and self.highpass_hz >= self.rate_hz / 2:
            raise ValueError("highpass_hz must be below half of rate_hz; nothing passes")
        return self


_OF_CLIPS, _OF_ECGS = "of clips", "of ECGs"
INPUT_FORMS = (_OF_CLIPS, _OF_ECGS)
"""Tags of the two forms of an input, which nobody writes."""


def _input_form(given: Any) -> str:
    """Whose input it is: only an ECG's has a number of samples."""
    if isinstance(given, dict):
        return _OF_ECGS if "samples" in given else _OF_CLIPS
    return _OF_ECGS if isinstance(given, WaveformInput) else _OF_CLIPS


NetworkInput = Annotated[
    Annotated[InputSpec, Tag(_OF_CLIPS)] | Annotated[WaveformInput, Tag(_OF_ECGS)],
    Discriminator(_input_form),
]
"""What a network sees: frames of a clip, or samples of an ECG."""


class Code(_Strict):
    """What an output means, in a coding scheme: ``18043-0``, ``LN``, say."""

    scheme: Annotated[str, Field(min_length=1, max_length=16)]
    value: Annotated[str, Field(min_length=1, max_length=64)]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]


class OutputSpec(_Strict):
    """One output: a task of :mod:`models.tasks`, how the raw number becomes its value, evidence.

    ``raw`` is the network's number at ``head`` of its last axis (None: the output's own place in
    the manifest), so that outputs may share one. ``link`` makes it a value for each frame and
    ``join`` one for the clip. With the plain link
    value = (raw * scale + offset) * side ** ``pixel_power``, where side is that of a network pixel
    in mm: a frame that was scaled to a fixed size has lost its scale, so a network can only speak
    of volumes in pixels (3), areas (2) or lengths (1), and a value in mm needs a pixel spacing
    that can be trusted. Ratios and scores have 0.
    ``low_error`` and ``high_error`` are the 2.5 % and 97.5 % quantiles of (truth - value) on
    held-out data: an interval is value + these.

    ``code`` states what the output means. Reports take the code from echonode's own table by the
    output's name; a pack that states another is refused, since it would be reported as what it
    is not. ``range`` is lowest and highest value to be believed, within those of the task.
    """

    name: str
    kind: Kind
    unit: str
    code: Code | None = None  #: None: that of the task, see :mod:`models.packs.codes`
    range: tuple[float, float] | None = None  #: None: that of the task
    head: int | None = Field(default=None, ge=0)
    link: Link = Link.LINEAR
    join: Join = Join.MEAN
    scale: float = 1.0
    offset: float = 0.0
    pixel_power: int = Field(default=0, ge=0, le=3)
    needs_motion: bool = False  #: a still cannot give it
    threshold: float | None = None
    low_error: float | None = None
    high_error: float | None = None
    evidence: Evidence
    caution: str = ""  #: what a reader must know beside the value, in words
    tested_on: str  #: which data, how many patients, which split
    figures: dict[str, Any] = Field(default_factory=dict)

    @field_validator("range")
    @classmethod
    def _ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError("the lowest value comes first and is below the highest")
        return value


class Manifest(_Strict):
    """The whole of ``manifest.json``.

    ``weights`` is a safetensors file for a network with a name; for a network in a file or folder
    it is that file or folder, and may be left out. ``weights_sha256`` is the file's SHA-256, and
    for a folder that of :func:`models.packs.files.fingerprint`.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    version: str
    kind: PackKind
    title: str
    network: Network
    weights: str = "weights.safetensors"
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    input: NetworkInput
    #: version of :mod:`models.preprocess` that training used; for ECGs, of :mod:`models.ecg.inputs`
    preprocessing: int = 1
    classes: tuple[str, ...] = ()  #: meaning of the last axis, for kinds VIEW and TRACING
    certain_from: float | None = None  #: kind VIEW: below this score a label is "uncertain"
    temperature: float = Field(default=1.0, gt=0.0)  #: kind VIEW: logits are divided by it
    outputs: tuple[OutputSpec, ...] = ()
    licence: str
    citations: tuple[str, ...] = ()
    trained_on: str
    training_command: str

    @property
    def frames(self) -> InputSpec:
        """What a network of clips sees.

        Raises
        ------
        PackError
            If this one sees ECGs.
        """
        if not isinstance(self.input, InputSpec):
            raise PackError(f"pack {self.name}: it reads ECGs, and a pack for clips is wanted")
        return self.input

    @property
    def waveform(self) -> WaveformInput:
        """What a network of ECGs sees.

        Raises
        ------
        PackError
            If this one sees clips.
        """
        if not isinstance(self.input, WaveformInput):
            raise PackError(f"pack {self.name}: it reads clips, and a pack for ECGs is wanted")
        return self.input

    @model_validator(mode="before")
    @classmethod
    def _weights_are_the_network(cls, fields: Any) -> Any:
        """A network in a file or folder needs no second name for it."""
        if isinstance(fields, dict) and "weights" not in fields:
            network = fields.get("network")
            for key in ("file", "folder"):
                if isinstance(network, dict) and isinstance(network.get(key), str):
                    return {**fields, "weights": network[key]}
        return fields

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        if not isinstance(self.network, NetworkSpec) and self.weights != self.network.name:
            raise ValueError(
                f"weights must be {self.network.name!r}, the network itself, or be left out"
            )
        return self

    @model_validator(mode="after")
    def _input_of_its_kind(self) -> Self:
        of_ecgs = isinstance(self.input, WaveformInput)
        if of_ecgs != (self.kind is PackKind.WAVEFORM):
            wanted = "a picture's rows and columns" if of_ecgs else "an ECG's samples and rate_hz"
            raise ValueError(f"kind {self.kind.value!r} takes {wanted} as its input")
        return self
