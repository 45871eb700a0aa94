"""What a manifest must agree with beside its own schema: tasks, units, codes, preprocessing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from models.packs.codes import code_of
from models.packs.manifest import InputSpec, Join, Manifest, OutputSpec, PackKind
from models.tasks import CLIP_TASKS, ECG_TASKS, TASKS, Task

MANIFEST = "manifest.json"

STRUCTURES = ("background", "cavity", "myocardium", "atrium")
"""What a tracing's first classes must be, in this order: they are measured by their places."""


def problems_of(manifest: Manifest) -> Iterator[str]:
    """All that is wrong with a manifest, a line each: the key, what is wrong, what to do."""
    version = _preprocessing(manifest.kind)
    if manifest.preprocessing != version:
        yield (
            f"made for preprocessing version {manifest.preprocessing}, and this echonode has "
            f"version {version}; use the matching release of the pack"
        )
    yield from (f"{MANIFEST}, {words}" for words in _field_problems(manifest))


def _preprocessing(kind: PackKind) -> int:
    """The version of what makes a network's input, here and now."""
    # They import manifest.py, and so this package.
    if kind is PackKind.WAVEFORM:
        from models.ecg.inputs import VERSION as OF_ECGS

        return OF_ECGS
    from models.preprocess import VERSION as OF_CLIPS

    return OF_CLIPS


def _field_problems(manifest: Manifest) -> Iterator[str]:
    windowed = isinstance(manifest.input, InputSpec) and manifest.input.window > 1
    if windowed and manifest.kind is not PackKind.REGRESSION:
        yield (f"input.window: kind {manifest.kind.value!r} reads a frame at a time; leave it out")
    if manifest.kind in (PackKind.REGRESSION, PackKind.WAVEFORM) and not manifest.outputs:
        yield f"outputs: a {manifest.kind.value} without an output says nothing; name one"
    if manifest.kind is PackKind.VIEW and not manifest.classes:
        yield "classes: a view pack needs them; name the views in the order of the last axis"
    first = manifest.classes[: len(STRUCTURES)]
    if manifest.kind is PackKind.TRACING and first not in ((), STRUCTURES):
        yield (
            f"classes: a tracing's are {', '.join(STRUCTURES)}, in this order, then any others; "
            "reorder the network's last axis"
        )
    for name, times in Counter(output.name for output in manifest.outputs).items():
        if times > 1:
            yield f"outputs: {name!r} is there {times} times; keep one"
    for place, output in enumerate(manifest.outputs):
        for key, words in _output_problems(output, manifest.kind):
            yield f"outputs.{place}.{key}: {words}"


def _output_problems(output: OutputSpec, kind: PackKind) -> Iterator[tuple[str, str]]:
    task = TASKS.get(output.name)
    if task is None:
        words = (
            f"{output.name!r} is not in models.tasks, and a report has no words and no code for "
            "it; take it out (the others' 'head' still counts its number), or use one of "
            f"{', '.join(TASKS)}"
        )
        yield "name", words
        return
    if output.name not in (ECG_TASKS if kind is PackKind.WAVEFORM else CLIP_TASKS):
        yield "name", f"{output.name} is no output of a pack of kind {kind.value!r}; take it out"
    if kind is PackKind.WAVEFORM:
        yield from _frame_problems(output)
    if output.kind is not task.kind:
        yield "kind", f"{output.name} is a {task.kind.value}, not a {output.kind.value}"
    if output.unit != task.unit:
        yield "unit", f"{output.name} is given in {task.unit!r}; scale it to that"
    yield from _range_problems(output, task)
    code = code_of(output.name, kind)
    if output.code is not None and code is not None:
        stated = (output.code.value, output.code.scheme)
        if stated != (code.value, code.scheme):
            words = (
                f"({stated[0]}, {stated[1]}) is not what {output.name} means in a report, "
                f"({code.value}, {code.scheme}) {code.meaning!r}; name the output that it is, or "
                "leave the code out"
            )
            yield "code", words


def _frame_problems(output: OutputSpec) -> Iterator[tuple[str, str]]:
    """What an output of an ECG says of frames, which it has not."""
    for key, given in (
        ("join", output.join is not Join.MEAN),
        ("pixel_power", output.pixel_power != 0),
        ("needs_motion", output.needs_motion),
    ):
        if given:
            yield key, "an ECG has no frames and no pixels; leave it out"


def _range_problems(output: OutputSpec, task: Task) -> Iterator[tuple[str, str]]:
    if output.range is None:
        return
    low, high = output.range
    if low < task.low or high > task.high:
        can_be = f"{task.low:g} to {task.high:g} {task.unit}"
        yield "range", f"{low:g} to {high:g} is wider than what can be, {can_be}; narrow it"
