"""Kills a node at random moments while DCMTK sends to it, and compares the books.

python -m tests.faults.kills [--kills 200] [--seed 5] [--out var/soak]
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from tests.faults.books import half_received, not_kept, not_whole
from tests.faults.objects import Sender, Sent, make_object
from tests.faults.prepared import PreparedNode, PreparedNodes
from tests.peers import accepts_connections, running, wait_until
from tests.running_node import RunningNode, echonode

_BATCH = 10  # objects of one sender, of two in each round
_IN_START_UP = 5  # every fifth kill falls into the start of the node, or right after it listens
_FROM_COMMAND_LINE = 20  # every twentieth is of `echonode serve` itself

_START_S = 300.0  # a busy machine takes its time


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What a run of kills came to. ``lost`` names each promise that was broken."""

    kills: int
    seed: int
    objects_sent: int
    acknowledged: int
    refused: int
    senders_interrupted: int
    lost: tuple[str, ...]
    seconds: float


class Kills:
    """Sends, kills, looks and starts again, on one data folder.

    Parameters
    ----------
    folder
        For everything: the node's data, the objects, the senders' logs.
    count, seed
        How many kills, and what chooses their moments.
    told
        Gets a line after each kill.
    """

    def __init__(
        self,
        nodes: PreparedNodes,
        folder: Path,
        *,
        count: int,
        seed: int,
        told: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._count = count
        self._seed = seed
        self._told = told
        self._random = random.Random(seed)  # noqa: S311 - chooses moments, keeps no secret
        self._outbox = folder / "sent"
        self._outbox.mkdir()
        self._node = PreparedNode(folder=folder, archives=[], nodes=nodes, quiet_s=1.0)
        self._node.write_config()
        self._data = folder / "data"
        self._sent: dict[str, Sent] = {}
        self._acknowledged: dict[str, Sent] = {}
        self._lost: list[str] = []
        self._kills = self._sendings = self._refused = self._interrupted = 0

    def run(self) -> Figures:
        """Kill so many times; at the end a sending that nothing disturbs, and all the books."""
        begin = time.monotonic()
        self._start()
        sending_s = self._undisturbed()
        while self._kills < self._count:
            number = self._kills + 1
            if number % _FROM_COMMAND_LINE == 0:
                self._kill_from_command_line(2 * sending_s)
            elif number % _IN_START_UP == 0 and number % 2:
                self._kill_in_start_up()
            elif number % _IN_START_UP == 1:
                self._kill_just_after_start()
            else:
                self._kill_while_sending(sending_s)
            self._told(f"kill {self._kills}: {len(self._acknowledged)} objects acknowledged")
        self._undisturbed()
        self._node.kill()
        self._lost += not_kept(self._data, self._acknowledged.values())
        self._lost += not_whole(self._data, self._sent)
        return Figures(
            kills=self._kills,
            seed=self._seed,
            objects_sent=len(self._sent),
            acknowledged=len(self._acknowledged),
            refused=self._refused,
            senders_interrupted=self._interrupted,
            lost=tuple(dict.fromkeys(self._lost)),
            seconds=round(time.monotonic() - begin, 1),
        )

    def _start(self) -> None:
        self._node.start()
        self._node.wait_listening()
        self._lost += [f"a start left {name} in incoming/" for name in half_received(self._data)]

    def _undisturbed(self) -> float:
        """Send without a kill; gives how long it took."""
        begin = time.monotonic()
        told = self._hear(self._send())
        if len(told) != 2 * _BATCH:
            self._lost.append(f"of an undisturbed sending {len(told)} objects were acknowledged")
        return time.monotonic() - begin

    def _kill_while_sending(self, within_s: float) -> None:
        senders = self._send()
        self._wait_for_the_moment(senders, within_s)
        self._node.kill()
        self._kills += 1
        self._hear(senders)
        self._start()

    def _kill_just_after_start(self) -> None:
        """As it begins to listen, with senders at the door."""
        senders = self._send()
        time.sleep(self._random.uniform(0.0, 0.03))
        self._node.kill()
        self._kills += 1
        self._hear(senders)
        self._start()

    def _wait_for_the_moment(self, senders: list[Sender], within_s: float) -> None:
        """Any moment of the sending: by the clock, or a little after any of its answers."""
        if self._random.random() < 1 / 3:
            time.sleep(self._random.uniform(0.0, within_s))
            return
        answers = self._random.randrange(2 * _BATCH)
        while sum(sender.answered() for sender in senders) < answers:
            if all(sender.process.poll() is not None for sender in senders):
                break
            time.sleep(0.002)
        time.sleep(self._random.uniform(0.0, within_s / _BATCH))

    def _kill_in_start_up(self) -> None:
        self._node.kill()
        self._node.start()
        time.sleep(self._random.uniform(0.0, 0.5))
        self._node.kill()
        self._kills += 1
        self._start()

    def _kill_from_command_line(self, within_s: float) -> None:
        """`echonode serve`, TensorFlow's workers and all."""
        self._node.kill()
        node = RunningNode(
            folder=self._node.folder,
            archives=self._node.archives,
            port=self._node.port,
            quiet_s=self._node.quiet_s,
        )
        command = echonode("--config", str(node.config), "serve")
        with running(command, log=node.folder / "serve.log") as node.process:
            wait_until(
                lambda: accepts_connections(node.port), what="it listens", timeout_s=_START_S
            )
            senders = self._send()
            self._wait_for_the_moment(senders, within_s)
            node.kill()
        self._kills += 1
        self._hear(senders)
        self._start()

    def _send(self) -> list[Sender]:
        """Start two senders: each with a study of a clip, a large clip and many stills."""
        self._sendings += 1
        senders = []
        for sender in range(2):
            batch: list[Sent] = []
            large = self._random.randrange(1, _BATCH)
            for number in range(_BATCH):
                made = make_object(
                    self._outbox,
                    self._random,
                    study_uid=batch[0].study_uid if batch else None,
                    frames=4 if number == 0 else 1,
                    megabytes=self._random.choice((1.0, 8.0)) if number == large else 0.0,
                )
                self._sent[made.uid] = made
                batch.append(made)
            log = self._outbox / f"storescu-{self._sendings}-{sender}.txt"
            senders.append(Sender(self._node.port, batch, log))
        return senders

    def _hear(self, senders: list[Sender]) -> list[Sent]:
        """Wait for the senders' ends, and look at once for all that they were told is kept."""
        acknowledged = []
        for sender in senders:
            told = sender.wait()
            self._refused += sum(words != "Success" for words in told.values())
            self._interrupted += len(told) < len(sender.objects)
            acknowledged += [item for item in sender.objects if told.get(item.uid) == "Success"]
        self._acknowledged.update((item.uid, item) for item in acknowledged)
        self._lost += not_kept(self._data, acknowledged)
        for sender in senders:
            for item in sender.objects:
                item.path.unlink()  # its digest is remembered
        return acknowledged


def at_random(count: int, seed: int, out: Path, console: Console) -> bool:
    """Kill, print the figures, keep them as JSON; tells whether all held."""
    with PreparedNodes() as nodes, tempfile.TemporaryDirectory() as folder:
        kills = Kills(nodes, Path(folder), count=count, seed=seed, told=console.print)
        figures = kills.run()
    console.print(figures)
    (out / "kills.json").write_text(json.dumps(asdict(figures), indent=1))
    return not figures.lost


def main() -> None:
    """Kill at random moments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("var/soak"), help="for kills.json")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if not at_random(options.kills, options.seed, options.out, Console()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
