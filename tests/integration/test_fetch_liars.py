"""An archive that answers what it was not asked, fails, is silent, or does not know us."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, config
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made from a table
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from node.fetching.dimse import By, DimseArchive
from node.fetching.model import FetchError, Outcome, Wish
from node.fetching.run import Broken
from node.sections import DimseSource
from storage.database import Database
from tests.fetch_steps import Site, Watch, fetching_site, study_of, uids
from tests.peers import free_port

pytestmark = [
    # The network library leaves the socket of a failed or rejected association to the collector,
    # and its own SCP, which plays the archive, the files of what it receives in pieces.
    pytest.mark.filterwarnings("ignore:Exception ignored in"),
    pytest.mark.filterwarnings("ignore:unclosed"),
]

DAY = date(2026, 1, 5)
KEYS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
FIND = StudyRootQueryRetrieveInformationModelFind
GET = StudyRootQueryRetrieveInformationModelGet
MOVE = StudyRootQueryRetrieveInformationModelMove


@dataclass
class Liar:
    """What the archive has, and how it fails to tell and send it."""

    objects: list[FileDataset]
    levels: tuple[str, ...] = ("STUDY", "SERIES", "IMAGE")  #: that it answers
    besides: list[Dataset] = field(default_factory=list)  #: answers that nobody asked for
    counts: bool = True  #: says how many instances there are
    fails: Callable[[FileDataset, int], bool] = lambda _clip, _try: False
    sends: list[FileDataset] | None = None  #: in place of what it is asked for
    aborts_after: int | None = None  #: objects, once
    silent: bool = False
    move_status: int = 0xA801
    services: tuple[Any, ...] = (FIND, GET, MOVE)
    requests: list[tuple[str, int]] = field(default_factory=list)
    tries: dict[str, int] = field(default_factory=dict)
    port: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        """C-FIND: everything of the level that it has, whatever else was asked for."""
        query = event.identifier
        level = query.QueryRetrieveLevel
        if self.silent:
            self.over.wait(10)
        if level not in self.levels:
            yield 0xA900, None
            return
        for number, answer in enumerate([*self._answers(query, level), *self.besides]):
            answer.QueryRetrieveLevel = level
            answer.PatientName = "Geheim^Patient"
            yield (0xFF00, 0xFF01)[number % 2], answer

    def _answers(self, query: Dataset, level: str) -> list[Dataset]:
        found: list[Dataset] = []
        for clip in self.objects:
            if level != "STUDY" and clip.StudyInstanceUID != query.StudyInstanceUID:
                continue
            answer = Dataset()
            for key in ("StudyInstanceUID", "StudyDate", KEYS[level]):
                setattr(answer, key, clip[key].value)
            if level == "STUDY" and self.counts:
                same = [o for o in self.objects if o.StudyInstanceUID == clip.StudyInstanceUID]
                answer.NumberOfStudyRelatedInstances = len(same)
            if level == "SERIES":
                answer.Modality = clip.Modality
                answer.NumberOfSeriesRelatedInstances = len(self.objects)
            found.append(answer)  # one for each clip: the same study, series again and again
        return found

    def get(self, event: evt.Event) -> Iterator[Any]:
        """C-GET."""
        asked = event.identifier
        named = asked.get("SOPInstanceUID") or []
        wanted = {named} if isinstance(named, str) else set(named)
        self.requests.append((asked.QueryRetrieveLevel, len(wanted)))
        clips = [
            clip
            for clip in self.objects
            if clip.StudyInstanceUID == asked.StudyInstanceUID
            and (not wanted or clip.SOPInstanceUID in wanted)
        ]
        yield len(clips if self.sends is None else self.sends)
        for number, clip in enumerate(clips if self.sends is None else self.sends):
            if self.aborts_after is not None and number >= self.aborts_after:
                self.aborts_after = None
                event.assoc.abort()
                return
            uid = str(clip.SOPInstanceUID)
            self.tries[uid] = self.tries.get(uid, 0) + 1
            if self.fails(clip, self.tries[uid]):
                broken = Dataset()  # has no class and cannot be sent
                broken.SOPInstanceUID = uid
                yield 0xFF00, broken
            else:
                yield 0xFF00, clip

    def move(self, _event: evt.Event) -> Iterator[Any]:
        """C-MOVE: it knows nobody."""
        yield None, None

    @contextmanager
    def listening(self) -> Iterator[Liar]:
        """Serve until the end of the block."""
        entity = AE("LIAR")
        for service in self.services:
            entity.add_supported_context(service, ExplicitVRLittleEndian)
        entity.add_supported_context(
            UltrasoundMultiFrameImageStorage,
            ExplicitVRLittleEndian,
            scu_role=True,
            scp_role=True,
        )
        self.port = free_port()
        server = entity.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[
                (evt.EVT_C_FIND, self.find),
                (evt.EVT_C_GET, self.get),
                (evt.EVT_C_MOVE, self.move),
            ],
        )
        assert server is not None
        try:
            yield self
        finally:
            self.over.set()
            server.shutdown()

    def archive(self, by: By = "auto", **more: Any) -> DimseArchive:
        """As the fetch sees it."""
        source = DimseSource(
            name="liar",
            kind="dimse",
            host="127.0.0.1",
            port=self.port,
            ae_title="LIAR",
            timeout_s=0.4 if self.silent else 5.0,
        )
        return DimseArchive(source, "ECHONODE", by=by, **more)


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Iterator[Site]:
    with fetching_site(database, tmp_path) as opened:
        yield opened


def study(clips: list[FileDataset]) -> str:
    return str(clips[0].StudyInstanceUID)


def wish_for(clips: list[FileDataset]) -> Wish:
    return Wish(studies=(study(clips),))


def test_wider_answers_are_dropped_and_repeated_ones_count_once(site: Site) -> None:
    clips, others = study_of(2), study_of(1, day="20260106")
    nameless = Dataset()
    nameless.StudyDate = f"{DAY:%Y%m%d}"
    with config.disable_value_validation():
        nameless.StudyInstanceUID = "no uid at all"
    with Liar(objects=clips + others, besides=[nameless]).listening() as liar:
        summary = site.fetch(liar.archive(), Wish(first_day=DAY, last_day=DAY))

    assert [one.study.study_instance_uid for one in summary.studies] == [study(clips)]
    assert summary.dropped == 2
    assert set(site.here(study(clips)).received) == uids(clips)
    assert site.here(study(others)).received == {}


def test_what_fails_is_asked_for_once_more_by_itself(site: Site) -> None:
    clips = study_of(4)
    first, second = str(clips[1].SOPInstanceUID), str(clips[2].SOPInstanceUID)
    liar = Liar(
        objects=clips,
        fails=lambda clip, tried: (
            clip.SOPInstanceUID == first or (clip.SOPInstanceUID == second and tried == 1)
        ),
    )
    with liar.listening():
        summary = site.fetch(liar.archive(), wish_for(clips))

    assert liar.requests == [("IMAGE", 4), ("IMAGE", 1), ("IMAGE", 1)]
    (report,) = summary.studies
    assert (report.outcome, report.taken, report.missing) == (Outcome.PARTLY, 3, 1)
    assert not summary.is_whole
    assert report.reasons == ["0xA702: it is out of resources: it cannot send, 1 not sent"]
    assert not site.is_released(study(clips))


def test_a_fetch_that_breaks_goes_on_with_the_same_study(site: Site) -> None:
    clips = study_of(4)
    watch = Watch()
    with Liar(objects=clips, aborts_after=2).listening() as liar:
        summary = site.fetch(liar.archive(), wish_for(clips), watch=watch)

    assert summary.is_whole
    assert summary.studies[0].taken == len(watch.taken) == 4
    assert "ended the association" in watch.waited[0][0]
    assert site.left_over() == []


def test_objects_that_nobody_asked_for_are_not_kept(site: Site) -> None:
    clips, others = study_of(2), study_of(2)
    with Liar(objects=clips, sends=[*others, clips[0]]).listening() as liar:
        summary = site.fetch(liar.archive(), wish_for(clips))

    assert site.here(study(others)).received == {}
    assert set(site.here(study(clips)).received) == uids(clips[:1])
    assert summary.studies[0].missing == 1
    assert "it sent what was not asked for" in summary.studies[0].reasons


@pytest.mark.parametrize(
    ("levels", "request_level"), [(("STUDY", "SERIES"), "SERIES"), (("STUDY",), "STUDY")]
)
def test_an_archive_that_lists_no_instances_is_believed_by_its_counts(
    site: Site, levels: tuple[str, ...], request_level: str
) -> None:
    clips = study_of(3)
    with Liar(objects=clips, levels=levels).listening() as liar:
        (first,) = site.fetch(liar.archive(), wish_for(clips)).studies
        (second,) = site.fetch(liar.archive(), wish_for(clips)).studies

    assert liar.requests == [(request_level, 0)]
    assert (first.outcome, first.taken, first.wanted) == (Outcome.TAKEN, 3, None)
    assert second.outcome is Outcome.COMPLETE


def test_one_that_does_not_know_us_is_told_with_what_to_do(site: Site) -> None:
    clips = study_of(1)
    with Liar(objects=clips).listening() as liar, pytest.raises(FetchError) as told:
        site.fetch(liar.archive("move", door="127.0.0.1:11112"), wish_for(clips))

    assert "0xA801" in str(told.value)
    assert "'ECHONODE'" in str(told.value)
    assert "port 11112" in str(told.value)


@pytest.mark.parametrize(
    ("services", "door", "words"),
    [
        ((GET, MOVE), None, "accepted none of our presentation contexts; let 'ECHONODE' query it"),
        ((FIND,), None, "offers neither C-GET nor C-MOVE"),
        ((FIND, MOVE), None, "which does not run"),
    ],
)
def test_a_service_that_is_missing_is_named(
    site: Site, services: tuple[Any, ...], door: str | None, words: str
) -> None:
    clips = study_of(1)
    with Liar(objects=clips, services=services).listening() as liar:
        archive = liar.archive(door=door)
        with pytest.raises(FetchError, match=words):
            site.fetch(archive, wish_for(clips))


def test_a_silent_archive_is_tried_with_growing_pauses_and_given_up(site: Site) -> None:
    watch = Watch()
    with (
        Liar(objects=[], silent=True).listening() as liar,
        pytest.raises(Broken, match="did not answer a query; given up after 4 tries"),
    ):
        site.fetch(liar.archive(), Wish(studies=(generate_uid(),)), watch=watch)
    assert [wait_s for _, wait_s in watch.waited] == [10, 20, 40]


def test_an_archive_that_is_down_is_given_up(site: Site) -> None:
    liar = Liar(objects=[], port=free_port())
    with pytest.raises(Broken, match="cannot be reached"):
        site.fetch(liar.archive(), Wish(studies=(generate_uid(),)))
