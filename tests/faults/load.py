"""Load for a soak: senders of all kinds, peers that misbehave, an archive that comes and goes."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread

from tests.faults.archive import archive_process
from tests.faults.objects import Sender, Sent, answers, as_sent, make_object
from tests.faults.processes import workers
from tests.peers import require
from tests.running_node import REAL_CINE, RunningNode, echonode, variant


@dataclass
class Ledger:
    """What was sent and what the senders were told; any thread may write."""

    sent: dict[str, Sent] = field(default_factory=dict)
    acknowledged: dict[str, Sent] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  #: UID to the answer's words
    unanswered: dict[str, str] = field(default_factory=dict)  #: UID to why nothing was said of it
    counted: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, objects: list[Sent], told: dict[str, str], otherwise: str) -> None:
        """Write down what became of a sending."""
        with self.lock:
            for item in objects:
                words = told.get(item.uid)
                if words == "Success":
                    self.acknowledged[item.uid] = item
                    self.refused.pop(item.uid, None)
                    self.unanswered.pop(item.uid, None)
                elif item.uid not in self.acknowledged:
                    self.sent.setdefault(item.uid, item)
                    if words is not None:
                        self.refused[item.uid] = words
                    else:
                        self.unanswered[item.uid] = otherwise
                self.sent.setdefault(item.uid, item)

    def count(self, what: str, number: int = 1) -> None:
        """One more of something that was done."""
        with self.lock:
            self.counted[what] += number


class Load:
    """Everything that happens to a node in a soak, each part in a thread of its own.

    Parameters
    ----------
    pace
        How fast things come: 1 is the pace of the half hour, 10 is ten times that.
    kill_workers_for_s
        Workers are killed for so long; after it what they hold can be judged.
    """

    def __init__(
        self,
        node: RunningNode,
        node_pid: int,
        archive_port: int,
        register: Path,
        folder: Path,
        *,
        seed: int,
        pace: float = 1.0,
        clips: bool = True,
        kill_workers_for_s: float = 0.0,
    ) -> None:
        self.ledger = Ledger()
        self.errors: list[str] = []
        self._node = node
        self._node_pid = node_pid
        self._archive_port = archive_port
        self._register = register
        self._folder = folder
        self._seed = seed
        self._pace = pace
        self._clips = clips
        self._kill_until = time.monotonic() + kill_workers_for_s
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._number = 0
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin."""
        parts: list[Callable[[random.Random], None]] = [
            self._stills,
            self._stills,
            self._large,
            self._duplicates,
            self._nasty,
            self._archive,
            self._commands,
            self._kills,
        ]
        if self._clips:
            parts.append(self._real_clips)
        for number, part in enumerate(parts):
            chance = random.Random(self._seed + number)  # noqa: S311 - no secret
            thread = threading.Thread(target=self._guarded, args=(part, chance))
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End what goes on; the archive is gone then."""
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _guarded(self, part: Callable[[random.Random], None], chance: random.Random) -> None:
        try:
            part(chance)
        except BaseException as error:  # noqa: BLE001 - the edge of a thread: the soak tells it
            self.errors.append(f"{part.__name__} ended: {error!r}")

    def _pause(self, seconds: float) -> bool:
        """Wait; False when the soak ends."""
        return not self._ending.wait(seconds / self._pace)

    def _send(self, batch: list[Sent], kind: str, *, ae_title: str = "ECHOCART") -> None:
        with self._lock:
            self._number += 1
            log = self._folder / f"storescu-{self._number}.txt"
        told = Sender(self._node.port, batch, log, ae_title=ae_title).wait(300)
        last = next(
            (line for line in log.read_text().splitlines()[::-1] if line[:2] in {"F:", "E:"}), ""
        )
        self.ledger.note(batch, told, last or "the association ended")
        self.ledger.count(kind, len(batch))
        log.unlink()

    def _stills(self, chance: random.Random) -> None:
        """Mostly what no model looks at: workers need a second of a core for each that one does."""
        ultrasound = True
        while self._pause(chance.uniform(0.5, 3.0)):
            batch: list[Sent] = []
            for _ in range(chance.randint(1, 4 if ultrasound else 25)):
                study = batch[0].study_uid if batch else None
                made = make_object(
                    self._folder,
                    chance,
                    study_uid=study,
                    ultrasound=ultrasound,
                    frames=4 if ultrasound and study is None else 1,
                )
                batch.append(made)
            self._send(batch, "small ultrasound" if ultrasound else "captures")
            ultrasound = chance.random() < 0.05

    def _large(self, chance: random.Random) -> None:
        while self._pause(chance.uniform(10.0, 30.0)):
            size = chance.choice((5.0, 20.0))
            made = make_object(self._folder, chance, megabytes=size, ultrasound=False)
            self._send([made], "large objects")
            made.path.unlink()  # its digest is remembered

    def _real_clips(self, chance: random.Random) -> None:
        while self._pause(chance.uniform(120.0, 200.0)):
            path = variant(self._folder)
            if chance.random() < 0.3:  # another clip of the same study, sent at the same time
                study_uid = str(dcmread(path, stop_before_pixels=True).StudyInstanceUID)
                paths = [path, variant(self._folder, study_uid=study_uid)]
            else:
                paths = [path]
            self._send_compressed(paths)

    def _send_compressed(self, paths: list[Path]) -> None:
        command = [require("storescu"), "-v", "-xy", "-aec", "ECHONODE", "127.0.0.1"]
        done = subprocess.run(
            [*command, str(self._node.port), *map(str, paths)],
            capture_output=True,
            text=True,
            check=False,
        )
        batch = [as_sent(path) for path in paths]
        self.ledger.note(batch, answers(done.stdout + done.stderr, batch), done.stderr[-200:])
        self.ledger.count(f"copies of {REAL_CINE.stem}", len(batch))

    def _duplicates(self, chance: random.Random) -> None:
        while self._pause(chance.uniform(5.0, 20.0)):
            with self.ledger.lock:
                known = [
                    item
                    for item in self.ledger.acknowledged.values()
                    if item.sha256 and item.path.exists()
                ]
            if known:
                self._send(chance.sample(known, min(5, len(known))), "duplicates")

    def _nasty(self, chance: random.Random) -> None:
        """Peers that open and say nothing, break off, and lie; from another address."""
        kept_open: list[socket.socket] = []
        while self._pause(chance.uniform(1.0, 5.0)):
            kind = chance.choice(("half-open", "garbage", "long PDU", "abort", "hang up"))
            self.ledger.count(f"nasty: {kind}")
            try:
                if kind == "abort":
                    self._send_and_abort(chance)
                    continue
                peer = socket.create_connection(
                    ("127.0.0.1", self._node.port), 10, source_address=("127.0.0.9", 0)
                )
                if kind == "garbage":
                    peer.sendall(chance.randbytes(4000))
                elif kind == "long PDU":
                    peer.sendall(b"\4\0\xff\xff\xff\xff" + b"\0" * 1000)
                elif kind == "hang up":
                    peer.sendall(b"\1\0\0\0\0\xc8\0\1")
                if kind == "hang up":
                    peer.close()
                else:
                    kept_open.append(peer)
            except OSError:
                pass  # the door may well hang up on it
            if len(kept_open) > 12:
                kept_open.pop(0).close()
        for peer in kept_open:
            peer.close()

    def _send_and_abort(self, chance: random.Random) -> None:
        """A sender that is killed while it sends: what it was not told is not acknowledged."""
        batch = [
            make_object(self._folder, chance, megabytes=3.0, ultrasound=False) for _ in range(2)
        ]
        log = self._folder / f"aborted-{chance.random()}.txt"
        sender = Sender(self._node.port, batch, log, ae_title="UNPLUGGED")
        time.sleep(chance.uniform(0.0, 0.3))
        sender.process.send_signal(signal.SIGKILL)
        self.ledger.note(batch, sender.wait(), "its sender was killed")
        log.unlink()
        for item in batch:
            item.path.unlink()

    def _archive(self, chance: random.Random) -> None:
        """Quick, then slow and unwilling, then away."""
        while not self._ending.is_set():
            for delay_s, refuse in ((0.0, 0.0), (2.0 / self._pace, 0.3)):
                with archive_process(
                    self._archive_port, self._register, delay_s=delay_s, refuse=refuse
                ):
                    if not self._pause(chance.uniform(40.0, 80.0)):
                        return
                self.ledger.count("archive restarted")
            if not self._pause(chance.uniform(20.0, 60.0)):
                return

    def _commands(self, chance: random.Random) -> None:
        while self._pause(chance.uniform(60.0, 120.0)):
            name = chance.choice(("status", "studies"))
            command = echonode("--config", str(self._node.config), name, "--json")
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            self.ledger.count("commands")
            if done.returncode != 0:
                self.errors.append(f"echonode {name} ended with {done.returncode}: {done.stderr}")

    def _kills(self, chance: random.Random) -> None:
        while time.monotonic() < self._kill_until and self._pause(chance.uniform(60.0, 150.0)):
            found = workers(self._node_pid)
            if found:
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(found), signal.SIGKILL)
                self.ledger.count("workers killed")
