"""``echonode demo``: a study through a real node to a stand-in archive."""

from __future__ import annotations

import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from node.cli.options import JsonOption
from node.cli.output import Problem, print_json, print_table, print_text, say

if TYPE_CHECKING:
    from node.demo.run import DemoOutcome


def demo(
    as_json: JsonOption = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave node and archive running until Ctrl-C.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the results here; otherwise in a new folder."),
    ] = None,
) -> None:
    """Send a real cine, simulated clips and a real ECG through a node to an archive.

    Then show what comes out of it.

    Everything is on loopback, at free ports, with the node's data in a temporary folder.
    """
    from node.demo.run import demonstration

    # A SIGTERM ends it as Ctrl-C does: the node is stopped, nothing stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = _folder(out)
    began = time.monotonic()
    with _progress(began) as progress, demonstration(folder, progress.tell) as outcome:
        progress.pause()
        if as_json:
            print_json(outcome.answer)
        else:
            _print(outcome, time.monotonic() - began)
        if keep:
            _wait_for_the_end(outcome)


class _progress:  # noqa: N801 - used as a word
    """Lines of progress on stderr: under a spinner on a terminal, plain elsewhere."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._console = Console(stderr=True, highlight=False)
        self._status = self._console.status("") if self._console.is_terminal else None

    def __enter__(self) -> _progress:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.pause()

    def tell(self, line: str) -> None:
        """Show a line."""
        text = f"[{time.monotonic() - self._began:5.1f} s] {line}"
        if self._status is None:
            say(text)
        else:
            self._console.print(text, markup=False)
            self._status.update(line.split(":")[0])

    def pause(self) -> None:
        """End the spinner, so that results can be printed."""
        if self._status is not None:
            self._status.stop()


def _folder(out: Path | None) -> Path:
    if out is None:
        return Path(tempfile.mkdtemp(prefix="echonode-demo-results-"))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(f"{out}: cannot be made: {error.strerror}; name another --out") from error
    return out.absolute()


def _print(outcome: DemoOutcome, seconds: float) -> None:
    from node.cli.findings import print_clips

    answer = outcome.answer
    print_clips(answer["clips"])
    print_text("")
    print_text(outcome.report)
    print_text("")
    _print_end(answer)
    _print_ecg(outcome)
    print_text(f"All steps done in {seconds:.0f} s.")


def _print_ecg(outcome: DemoOutcome) -> None:
    """What came of the ECG, and what its models say and may not be reported."""
    from node.cli.findings import output_title, print_clips

    answer = outcome.answer["ecg"]
    print_text("")
    print_clips(answer["clips"], title="12-lead ECG")
    if answer["kept_back"]:
        print_table(
            "Found, and kept back from the report",
            ("output", "pack", "why"),
            [(output_title(one), one["pack"], one["why"]) for one in answer["kept_back"]],
            long=("output", "why"),
        )
    if outcome.ecg_report:
        print_text("")
        print_text(outcome.ecg_report)
        print_text("")
    _print_end(answer)


def _print_end(answer: dict[str, Any]) -> None:
    study = answer["study"]
    print_text(f"Study {study['uid']}: {study['state']}, {study['reason']}")
    print_table(
        "Deliveries",
        ("kind", "to", "state", "answer"),
        [
            (item["kind"], item["destination"], item["state"], item["last_answer"])
            for item in answer["deliveries"]
        ],
        long=("answer",),
    )
    print_table(
        "Results at the archive",
        ("kind", "path"),
        [(item["kind"], item["path"]) for item in answer["results"]],
        long=("path",),
    )


def _wait_for_the_end(outcome: DemoOutcome) -> None:
    addresses = outcome.answer["addresses"]
    for name in ("node", "archive"):
        place = addresses[name]
        say(f"{name}: {place['ae_title']} on {place['host']}:{place['port']}")
    say(f"ask it: echonode --config {addresses['config']} status")
    say("Ctrl-C ends both")
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stopping.set())
    stopping.wait()
