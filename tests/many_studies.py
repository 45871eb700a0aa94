"""A database as a node leaves it that has worked for months, filled in bulk.

Nearly every study is done; a few are on their way, the same few however many there are, since
what is on its way depends on a day's work and not on the archive's age. So is the number of studies
of a day. The rows are those that the node writes: clips with views, findings, results, deliveries,
an archive's promises, and the timeline of it all.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

from sqlalchemy import Engine, Table, create_engine, event, insert, text
from sqlalchemy.pool import NullPool

from storage.states import (
    CommitmentOutcome,
    DeliveryState,
    EventKind,
    Promise,
    RecordingKind,
    RecordingState,
    ResultKind,
    StudyState,
)
from storage.tables import Base

STUDIES_A_DAY = 100
IMAGES = 67  #: of a study ...
CLIPS = 60  #: ... and those that a model looks at
DESTINATION = "pacs"

_A4C = 4  # clips of a study that are analysed
_PACKS = ("lv", "la", "function")
_OUTPUTS = ("ef", "edv", "esv", "ra_length", "la_volume")
_VIEWS = ("psla", "psax_av", "psax_mid", "a2c", "a3c", "subcostal_4c", "other")
_ANALYSING = 6  # studies with clips that wait for a worker
_RECEIVING = 3
_DELIVERING = 3  # studies whose results wait for an archive
_HELD = 1
ON_THEIR_WAY = _ANALYSING + _RECEIVING + _DELIVERING + _HELD
_BATCH = 50  # studies in a transaction
_CACHE_KIB = 512 << 10

Rows = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Filled:
    """What there is."""

    studies: int
    instances: int
    end: datetime  #: when the last image came

    @property
    def words(self) -> str:
        """How much that is."""
        return f"{self.instances:,} objects in {self.studies:,} studies"

    def uid(self, number: int) -> str:
        """The UID of a study, by its number from 0 on in the order in which they came."""
        return _uid("study", number)

    @property
    def days(self) -> int:
        """How many days there are of which every study is there."""
        return self.studies // STUDIES_A_DAY

    def day(self, number: int) -> date:
        """The date of the studies of a day, the last being 0."""
        return _day(number, self.end)


def fill(url: str, instances: int, *, file_key: str, end: datetime | None = None) -> Filled:
    """Fill a database that has tables and no rows.

    Parameters
    ----------
    file_key
        Of every object: what reads files reads this one.
    end
        When the last image came; now, where it is not said.
    """
    end = end or datetime.now(UTC)
    studies = max(ON_THEIR_WAY + 5, round(instances / IMAGES))
    engine = _engine(url)
    numbers: dict[str, Iterator[int]] = defaultdict(lambda: count(1))
    try:
        for start in range(0, studies, _BATCH):
            rows: Rows = defaultdict(list)
            for number in range(start, min(start + _BATCH, studies)):
                _Study(rows, numbers, number, studies, end, file_key).write()
            with engine.begin() as connection:
                for table in Base.metadata.sorted_tables:
                    if rows[table.name]:
                        connection.execute(insert(table), rows[table.name])
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                for name, following in numbers.items():
                    connection.execute(_go_on_from(Base.metadata.tables[name], next(following)))
        if engine.dialect.name == "postgresql":
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE"))
    finally:
        engine.dispose()
    return Filled(studies=studies, instances=studies * IMAGES, end=end)


class _Study:
    """Writes the rows of one study."""

    def __init__(
        self,
        rows: Rows,
        numbers: dict[str, Iterator[int]],
        number: int,
        studies: int,
        end: datetime,
        file_key: str,
    ) -> None:
        self._rows = rows
        self._numbers = numbers
        self._number = number
        self._file_key = file_key
        self._state = _state(number, studies)
        self._end = end
        self._came = _came(number, studies, end)
        self._id = self._add(
            "study",
            study_instance_uid=_uid("study", number),
            state=self._state,
            reason="every destination has every result",
            next_step="",
            revision=1,
            state_before_hold=StudyState.ANALYSING if self._state is StudyState.HELD else None,
            reason_before_hold="",
            next_step_before_hold="",
            urgency=1 if number % 20 == 0 else 0,
            first_image_at=self._came - timedelta(minutes=20),
            revision_opened_at=self._came - timedelta(minutes=20),
            last_image_at=self._came,
            last_released_at=self._came,
            state_since=self._at(300),
            study_date=_day((studies - 1 - number) // STUDIES_A_DAY, end),
            accession_number=f"A{number:08d}",
            description="Echocardiogram",
        )

    def write(self) -> None:
        """Everything of it."""
        self._event(EventKind.STUDY_OPENED, "first object by dimse from ECHOCART", -1200)
        clips = [self._instance(place) for place in range(IMAGES)][:CLIPS]
        if self._state is not StudyState.RECEIVING:
            self._event(EventKind.STUDY_COMPLETE, "association released and no image since", 30)
        if self._state is StudyState.IGNORED:
            self._event(EventKind.STUDY_IGNORED, "no view that a model knows", 60)
            return
        analysed = [
            self._recording(place, instance, place < _A4C) for place, instance in enumerate(clips)
        ][:_A4C]
        if self._state in (StudyState.DONE, StudyState.DELIVERING, StudyState.FAILED):
            self._event(EventKind.REPORTING, "every recording has an end", 290)
            self._event(EventKind.RESULTS_MADE, "1 report, 4 pictures", 295)
            self._results(analysed)

    def _instance(self, place: int) -> int:
        name = f"{self._number}.{place}"
        return self._add(
            "instance",
            study_id=self._id,
            series_instance_uid=_uid("series", self._number),
            sop_instance_uid=_uid("object", name),
            sop_class_uid="1.2.840.10008.5.1.4.1.1.3.1",
            transfer_syntax_uid="1.2.840.10008.1.2.4.50",
            content_sha256=_digest(name),
            size_bytes=2_000_000 + 1000 * ((self._number + place) % 4000),
            file_key=self._file_key,
            calling_ae="ECHOCART",
            called_ae="ECHONODE",
            peer_host="192.0.2.7",
            door="dimse",
            received_at=self._at(-1200 + 1200 * place / IMAGES),
            own=False,
            revision=1,
        )

    def _recording(self, place: int, instance: int, a4c: bool) -> int:
        waits = self._state in (StudyState.ANALYSING, StudyState.HELD)
        if self._state is StudyState.RECEIVING:
            state = RecordingState.RECEIVED
        elif waits:
            state = RecordingState.QUEUED if a4c else RecordingState.TO_VIEW
        elif a4c and self._state is StudyState.FAILED:
            state = RecordingState.FAILED
        else:
            state = RecordingState.DONE if a4c else RecordingState.SKIPPED
        seen = state not in (RecordingState.RECEIVED, RecordingState.TO_VIEW)
        ended = seen and not waits
        view = "a4c" if a4c else _VIEWS[place % len(_VIEWS)]
        row = self._add(
            "recording",
            instance_id=instance,
            study_id=self._id,
            kind=RecordingKind.ULTRASOUND,
            state=state,
            reason="" if a4c else f"view {view}: no pack reads it",
            mode="2d" if seen else None,
            view_label=view if seen else None,
            view_score=0.9 if seen else None,
            view_certain=True if seen else None,
            frame_count=60 if seen else None,
            attempts=1 if ended else 0,
            urgency=1 if self._number % 20 == 0 else 0,
            queued_at=None if state is RecordingState.RECEIVED else self._at(30 + place),
            started_at=self._at(40 + place) if ended else None,
            finished_at=self._at(42 + place) if ended else None,
            worker="pool" if ended else None,
        )
        if seen:
            self._event(EventKind.VIEW_NAMED, f"view {view} (0.90)", 40 + place)
        if state is RecordingState.FAILED:
            self._event(EventKind.RECORDING_FAILED, "given up after 3 attempts", 250)
        if state is RecordingState.DONE:
            self._findings(row)
        return row

    def _findings(self, recording: int) -> None:
        pack = {"pack": "lv", "pack_version": "1.0", "weights_sha256": _digest("lv")}
        for output in _OUTPUTS:
            self._add(
                "finding",
                recording_id=recording,
                revision=1,
                output=output,
                kind="measurement",
                value=55.0,
                unit="%",
                low=48.0,
                high=62.0,
                method="single-plane discs",
                evidence="patients",
                frames=[7, 21, 35],
                per_beat=[54.0, 56.0],
                outside_share=0.1,
                **pack,
            )
        self._add("refusal", recording_id=recording, output="la_area", reason="no scale", **pack)
        for name in _PACKS:
            self._add(
                "pack_run",
                recording_id=recording,
                pack=name,
                version="1.0",
                weights_sha256=_digest(name),
            )
        self._event(EventKind.RECORDING_DONE, "analysed by 3 packs: 5 findings, 1 refusal", 280)

    def _results(self, recordings: list[int]) -> None:
        sending = self._state is StudyState.DELIVERING
        deliveries = []
        for place, recording in enumerate((None, *recordings)):
            name = f"{self._number}.result.{place}"
            result = self._add(
                "result",
                study_id=self._id,
                revision=1,
                recording_id=recording,
                kind=ResultKind.SR if recording is None else ResultKind.SC,
                sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
                sop_instance_uid=_uid("result", name),
                series_instance_uid=_uid("results", self._number),
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                file_key=self._file_key,
                sha256=_digest(name),
                size_bytes=40_000,
                created_at=self._at(295),
                current=True,
            )
            deliveries.append(
                self._add(
                    "delivery",
                    result_id=result,
                    destination=DESTINATION,
                    state=DeliveryState.WAITING if sending else DeliveryState.DELIVERED,
                    attempts=1,
                    queued_at=self._at(295),
                    next_attempt_at=self._end + timedelta(hours=1) if sending else self._at(295),
                    last_attempt_at=self._at(296),
                    last_answer="not reached" if sending else "success",
                    delivered_at=None if sending else self._at(299),
                    stored_at=None if sending else self._at(297),
                    asks=0 if sending else 1,
                    promise=None if sending else Promise.COMMITTED,
                )
            )
            kind = EventKind.DELIVERY_AGAIN if sending else EventKind.STORED
            self._event(kind, f"{DESTINATION} and the result", 297)
        if sending:
            return
        commitment = self._add(
            "commitment",
            transaction_uid=_uid("transaction", self._number),
            destination=DESTINATION,
            asked_at=self._at(298),
            due_at=self._at(360),
            accepted_at=self._at(298),
            closed_at=self._at(299),
            outcome=CommitmentOutcome.ANSWERED,
            answer="",
        )
        for delivery in deliveries:
            self._add(
                "commitment_item",
                commitment_id=commitment,
                delivery_id=delivery,
                answered_at=self._at(299),
            )
            self._event(EventKind.DELIVERED, f"{DESTINATION} has promised to keep it", 299)
        self._event(EventKind.STUDY_DONE, "every destination has every result", 300)

    def _event(self, kind: EventKind, message: str, seconds: float) -> None:
        self._add(
            "timeline_event",
            study_id=self._id,
            at=self._at(seconds),
            kind=kind.value,
            message=message,
            details={"sop_instance_uid": _uid("object", self._number)},
        )

    def _add(self, table: str, **values: Any) -> int:
        number = next(self._numbers[table])
        self._rows[table].append({"id": number, **values})
        return number

    def _at(self, seconds: float) -> datetime:
        return self._came + timedelta(seconds=seconds)


def _state(number: int, studies: int) -> StudyState:
    """The last studies are on their way."""
    place = studies - 1 - number
    for state, many in (
        (StudyState.RECEIVING, _RECEIVING),
        (StudyState.ANALYSING, _ANALYSING),
        (StudyState.HELD, _HELD),
        (StudyState.DELIVERING, _DELIVERING),
    ):
        if place < many:
            return state
        place -= many
    if number % 500 == 4:
        return StudyState.FAILED
    return StudyState.IGNORED if number % 50 == 0 else StudyState.DONE


def _came(number: int, studies: int, end: datetime) -> datetime:
    """When the last image of a study came: so many a day, the last one at the end."""
    return end - (studies - 1 - number) * timedelta(days=1) / STUDIES_A_DAY


def _day(number: int, end: datetime) -> date:
    """Days end with the last image, so that each has as many studies as another."""
    return end.date() - timedelta(days=number)


def _uid(kind: str, name: object) -> str:
    """In no order, as those of several machines are not."""
    number = int.from_bytes(hashlib.sha256(f"{kind} {name}".encode()).digest()[:14])
    return f"1.2.826.0.1.3680043.8.498.{number:034d}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _engine(url: str) -> Engine:
    """One that need not survive a power cut."""
    engine = create_engine(url, poolclass=NullPool)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _set_up(connection: Any, _record: object) -> None:
            for pragma in ("synchronous=OFF", f"cache_size=-{_CACHE_KIB}"):
                connection.execute(f"PRAGMA {pragma}")

    return engine


def _go_on_from(table: Table, number: int) -> Any:
    return text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :number, false)").bindparams(
        name=table.name, number=number
    )
