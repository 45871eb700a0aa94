"""A clip that hangs or crashes its worker fails alone, with the reason; all others go on."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from node.dispatch import Dispatcher, DispatchSettings, Work
from node.executor import WorkerDied, WorkerProcesses
from node.intake import Arrival
from storage.database import Database
from storage.states import RecordingState
from tests.fuzz import poison
from tests.integration.test_life_of_a_study import House
from tests.peers import wait_until
from tests.running_node import variant


def test_a_segfault_in_a_worker_fails_its_job_alone() -> None:
    with WorkerProcesses(1) as pool:
        doomed, after = pool.submit(ctypes.string_at, 0), pool.submit(len, "abc")
        with pytest.raises(WorkerDied, match=r"signal 11 \(SIGSEGV"):
            doomed.result(60)
        assert after.result(60) == 3
        assert pool.workers()[0].restarts == 1


def test_clips_that_hang_or_crash_fail_after_their_tries_and_the_others_go_on(
    database: Database, tmp_path: Path
) -> None:
    house = House(database, tmp_path)
    uid = generate_uid()
    for description in (poison.HANGS, poison.CRASHES, "Apical"):
        source = variant(tmp_path, study_uid=uid, SeriesDescription=description)
        arriving = house.files.incoming_folder / source.name
        source.rename(arriving)
        assert house.intake.receive(Arrival(path=arriving, door="test")).new
    house.complete()
    with WorkerProcesses(1, time_limit_s=3.0) as pool:
        dispatcher = Dispatcher(
            house.database,
            house.files,
            pool,
            DispatchSettings(slots=1, max_attempts=2, allow_simulated_evidence=False),
            house.report_settings,
            work=Work(name_view=poison.name_view, analyse=poison.analyse),
        )
        dispatcher.start()
        try:
            ends = {RecordingState.REFUSED, RecordingState.FAILED}
            wait_until(
                lambda: set(house.recordings(uid)) <= ends, what="all have an end", timeout_s=200
            )
        finally:
            dispatcher.stop()
    hung, crashed, good = house.detail(uid).recordings
    assert hung.state is RecordingState.FAILED
    assert "took longer than 3 s" in hung.reason
    assert crashed.state is RecordingState.FAILED
    assert "SIGSEGV" in crashed.reason
    assert good.state is RecordingState.REFUSED
    assert good.reason == "this one was read to its end"
