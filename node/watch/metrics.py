"""What the node counts, for Prometheus. docs/metrics.md lists every name.

Parts of the node call the methods of :class:`Metrics`, which they get as plain callables; what is
a state and not an event is read when somebody asks. No label holds anything of a patient, nor a
name that a stranger chose.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import prometheus_client
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from storage import catalog
from storage.database import Database, DatabaseError

log = structlog.get_logger(__name__)

OTHER = "other"  #: in place of a name that the settings do not know

_STAGES = ("keep", "queue", "view", "analyse", "report", "study", "deliver")
_STAGE_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_INFERENCE_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
_WORKER_STATES = ("starting", "idle", "busy", "failed", "stopped")
_TROUBLES = ("disk-full", "store-gone", "store-read-only", "database", "clock")

#: How the words for a caller who is not let in begin, or what they hold; see node.doors.
_WHY_TURNED_AWAY = (
    ("address", "address"),
    ("not an address", "address"),
    ("calling AE title", "calling-ae"),
    ("called AE title", "called-ae"),
    ("no TLS", "no-tls"),
    ("are open", "too-many"),
    ("the disk", "node-refuses"),
    ("the store", "node-refuses"),
    ("the database", "node-refuses"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """What is read of the node when somebody asks.

    ``disk`` is as :func:`node.watch.disk.shown` gives it, ``workers`` the slots of the executor.
    """

    database: Database
    disk: Callable[[], Mapping[str, Any]] = dict
    associations: Callable[[], int] = int
    workers: Callable[[], Iterable[Any]] = tuple


class Metrics:
    """Counts what the node does. Every method may be called from any thread and raises nothing.

    Parameters
    ----------
    peers
        The AE titles that the settings name; all others are counted together.
    started_at_s
        When the node started, in seconds of Unix time.
    """

    def __init__(self, peers: Collection[str] = (), *, started_at_s: float | None = None) -> None:
        # Else each counter has a second series that says when it was begun.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # has no types
        self._peers = frozenset(peers)
        self.registry = CollectorRegistry(auto_describe=False)
        self._received = Counter(
            "echonode_received_objects_total",
            "Objects that were kept and acknowledged.",
            ["door", "peer"],
            registry=self.registry,
        )
        self._received_bytes = Counter(
            "echonode_received_bytes_total",
            "Bytes of objects that were kept and acknowledged.",
            ["door", "peer"],
            registry=self.registry,
        )
        self._repeated = Counter(
            "echonode_repeated_objects_total",
            "Objects that came again and were kept already.",
            ["door"],
            registry=self.registry,
        )
        self._refused = Counter(
            "echonode_refused_objects_total",
            "Objects that were not taken, or put into quarantine.",
            ["door", "reason"],
            registry=self.registry,
        )
        self._turned_away = Counter(
            "echonode_turned_away_callers_total",
            "Callers that were not let in.",
            ["door", "reason"],
            registry=self.registry,
        )
        self._stages = Histogram(
            "echonode_stage_duration_seconds",
            "What one step of an object, clip, study or result took.",
            ["stage"],
            buckets=_STAGE_BUCKETS_S,
            registry=self.registry,
        )
        self._inference = Histogram(
            "echonode_inference_duration_seconds",
            "One pack's reading of one clip, its maps not counted.",
            ["pack"],
            buckets=_INFERENCE_BUCKETS_S,
            registry=self.registry,
        )
        self._clips = Counter(
            "echonode_clip_outcomes_total",
            "What came of work on clips.",
            ["outcome"],
            registry=self.registry,
        )
        self._studies = Counter(
            "echonode_study_outcomes_total",
            "What came of studies.",
            ["outcome"],
            registry=self.registry,
        )
        self._answers = Counter(
            "echonode_delivery_answers_total",
            "What destinations said to objects that were sent to them.",
            ["destination", "answer"],
            registry=self.registry,
        )
        self._alerts = Counter(
            "echonode_alerts_total",
            "Alerts that were told, and whether they went out.",
            ["kind", "way", "outcome"],
            registry=self.registry,
        )
        Gauge(
            "echonode_build_info", "The version of the node.", ["version"], registry=self.registry
        ).labels(version("echonode")).set(1)
        Gauge(
            "echonode_start_time_seconds",
            "When the node started, in Unix time.",
            registry=self.registry,
        ).set(time.time() if started_at_s is None else started_at_s)
        ProcessCollector(namespace="echonode", registry=self.registry)
        for stage in _STAGES:
            self._stages.labels(stage)  # from the start: a rate needs a first value

    def watch(self, watched: Watched) -> None:
        """Read the gauges from these parts at every scrape."""
        self.registry.register(_Gauges(watched))

    def received(self, door: str, size_bytes: int, peer: str = "") -> None:
        """Count an object that was kept; ``peer`` is the AE title of its sender."""
        who = peer if peer in self._peers else OTHER
        self._received.labels(door, who).inc()
        self._received_bytes.labels(door, who).inc(size_bytes)

    def repeated(self, door: str) -> None:
        """Count an object that was there already."""
        self._repeated.labels(door).inc()

    def refused(self, door: str, reason: str) -> None:
        """Count an object that was not taken; ``reason`` is one of docs/metrics.md."""
        self._refused.labels(door, reason).inc()

    def turned_away(self, door: str, reason: str) -> None:
        """Count a caller that was not let in; ``reason`` is in the door's own words."""
        for words, why in _WHY_TURNED_AWAY:
            if reason.startswith(words) or (words == "are open" and words in reason):
                self._turned_away.labels(door, why).inc()
                return
        self._turned_away.labels(door, OTHER).inc()

    def stage_took(self, stage: str, seconds: float) -> None:
        """Count a step that has ended; ``stage`` is one of docs/metrics.md."""
        self._stages.labels(stage).observe(max(0.0, seconds))  # a clock may be set back

    def analysed(self, pack: str, seconds: float) -> None:
        """Count one pack's reading of one clip."""
        self._inference.labels(pack).observe(seconds)

    def clip_ended(self, outcome: str) -> None:
        """Count what came of work on a clip."""
        self._clips.labels(outcome).inc()

    def study_ended(self, outcome: str) -> None:
        """Count what came of a study."""
        self._studies.labels(outcome).inc()

    def delivered(self, destination: str, answer: str) -> None:
        """Count an answer of a destination."""
        self._answers.labels(destination, answer).inc()

    def alerted(self, kind: str, way: str, outcome: str) -> None:
        """Count an alert that went out, or did not."""
        self._alerts.labels(kind, way, outcome).inc()

    def shown(self, accept: str = "") -> tuple[bytes, str]:
        """All of it as text, with its content type, in the form that a caller accepts."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class _Gauges(Collector):
    """Reads the node when it is asked. What cannot be read is left out, and the rest is told."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def collect(self) -> Iterator[Any]:
        yield from self._queue()
        yield _gauge(
            "echonode_associations_open",
            "DICOM associations that are open at the door.",
            self._watched.associations(),
        )
        yield from self._workers()
        yield from self._disk()

    def _queue(self) -> Iterator[Any]:
        up = True
        families: list[Any] = []
        try:
            with self._watched.database.read() as session:
                queues = catalog.queue_status(session, last_errors=0)
                waiting = catalog.watch_destinations(session)
        except DatabaseError as error:
            log.warning("metrics-without-rows", reason=str(error))
            up = False
        else:
            families = _queue_families(queues, waiting)
        yield _gauge("echonode_database_up", "1 where the rows could be read at the scrape.", up)
        yield from families

    def _workers(self) -> Iterator[Any]:
        workers = tuple(self._watched.workers())
        states = Tally(str(getattr(worker.state, "value", worker.state)) for worker in workers)
        yield _by_label(
            "echonode_workers",
            "Worker processes by what they do.",
            "state",
            {state: states[state] for state in _WORKER_STATES},
        )
        for name, words, count in (
            ("jobs", "Jobs that worker processes have done.", "jobs_done"),
            ("restarts", "Worker processes that took the place of a dead one.", "restarts"),
        ):
            yield CounterMetricFamily(
                f"echonode_worker_{name}",
                words,
                value=sum(getattr(worker, count) for worker in workers),
            )

    def _disk(self) -> Iterator[Any]:
        disk = self._watched.disk()
        volumes = dict(zip(("data", "database"), disk.get("volumes", ()), strict=False))
        for name, words, key in (
            ("free", "Free on the volume.", "free_bytes"),
            ("size", "Size of the volume.", "total_bytes"),
            ("mark", "With less free on the volume, the node takes nothing.", "mark_bytes"),
        ):
            yield _by_label(
                f"echonode_disk_{name}_bytes",
                words,
                "volume",
                {volume: seen[key] for volume, seen in volumes.items()},
            )
        yield _gauge(
            "echonode_refusing",
            "1 while the node takes nothing in.",
            disk.get("refusing") is not None,
        )
        kinds = {trouble["kind"] for trouble in disk.get("troubles", ())}
        yield _by_label(
            "echonode_trouble",
            "1 while there is this trouble.",
            "kind",
            {kind: kind in kinds for kind in _TROUBLES},
        )


def _queue_families(
    queues: catalog.QueueStatus, waiting: Iterable[catalog.DestinationWatch]
) -> list[Any]:
    families = [
        _by_label(f"echonode_queue_{name}", f"{words} by state.", "state", counts)
        for name, words, counts in (
            ("studies", "Studies", queues.studies),
            ("clips", "Clips", queues.recordings),
            ("deliveries", "Deliveries, each one result to one destination,", queues.deliveries),
        )
    ]
    for name, what, oldest in (
        ("clip", "clip", queues.oldest_recording),
        ("delivery", "delivery", queues.oldest_delivery),
    ):
        families.append(
            _gauge(
                f"echonode_queue_oldest_{name}_seconds",
                f"Age of the {what} that has waited longest; 0 where none waits.",
                0.0 if oldest is None else max(0.0, oldest.age_s),
            )
        )
    by_destination = {one.destination: one for one in waiting}
    return [
        *families,
        _by_label(
            "echonode_destination_waiting_deliveries",
            "Deliveries that wait for a destination.",
            "destination",
            {name: one.waiting for name, one in by_destination.items()},
        ),
        _by_label(
            "echonode_destination_oldest_waiting_seconds",
            "Age of the delivery to a destination that has waited longest.",
            "destination",
            {name: one.oldest_age_s for name, one in by_destination.items()},
        ),
        _gauge("echonode_quarantined_objects", "Objects in quarantine.", queues.quarantined),
    ]


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, value=float(value))


def _by_label(name: str, words: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=[label])
    for value, count in values.items():
        family.add_metric([value], float(count))
    return family
