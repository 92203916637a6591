# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a long step is: what its processes write, and what a person reads of it."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _progress
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import integrity
from ansible_collections.memops.agent_memory.plugins.plugin_utils._progress import said
from tests.unit.operations.operations_help import NS, Place


@pytest.fixture(autouse=True)
def _untold() -> t.Iterator[None]:
    yield
    _progress.start(None)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress, "QUIET", 0.0)
    monkeypatch.setattr(_progress, "EVERY", 0.0)


@pytest.mark.usefixtures("at_once")
def test_all_processes_of_a_scan_tell_what_they_did(
    place: Place, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "SMALL", 50)
    place.fill(2500)
    path = tmp_path / "progress"
    _progress.start(str(path))
    integrity.scan(store_params=place.store, namespace=NS, keyring=place.keyring, workers=2)
    lines = path.read_text().splitlines()
    assert 1 <= len(lines) <= 2  # one process may have had all the work
    assert all(len(line) == _progress.SLOT - 1 for line in lines)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert said(lines, 2500).startswith("checking records: 2,500 of about 2,500 records")
    assert "user" not in path.read_text() and NS not in path.read_text()
    _progress.finish()
    assert not path.exists()


def test_a_step_that_is_soon_done_writes_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "progress"
    _progress.start(str(path))
    _progress.begin("checking records", 10)
    assert list(_progress.counted([[1, 2], [3]])) == [[1, 2], [3]]
    assert not path.exists()
    _progress.finish()


@pytest.mark.usefixtures("at_once")
def test_what_cannot_be_written_stops_nothing_and_a_link_is_not_followed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "elsewhere").write_text("theirs")
    (tmp_path / "progress").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "progress", tmp_path / "missing" / "progress"):
        _progress.start(str(path))
        _progress.begin("checking records")
        _progress.add(1)
        _progress.add(1)
    assert (tmp_path / "elsewhere").read_text() == "theirs"


@pytest.mark.usefixtures("at_once")
def test_a_forked_process_has_a_slot_of_its_own(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "progress"
    _progress.start(str(path))
    _progress.begin("copying records", 100)
    _progress.add(10)
    pid = os.fork()
    if pid == 0:
        _progress.tell(30)
        _progress.tell(40)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    _progress.add(1)
    assert [json.loads(line)["done"] for line in path.read_text().splitlines()] == [11, 40]


def slot(**more: t.Any) -> str:
    return json.dumps({"n": 1, "phase": "copying records", "unit": "records", "of": None, "seconds": 10.0, **more})


@pytest.mark.parametrize(
    ("lines", "expected", "words"),
    [
        ([], 5, ""),
        (["{torn"], 5, ""),
        ([slot(done=500)], None, "copying records: 500 records, 50/s"),
        ([slot(done=500, of=1000)], None, "copying records: 500 of 1,000 records, 50/s, 10 s left"),
        ([slot(done=500), slot(done=500)], 4000, "copying records: 1,000 of about 4,000 records, 100/s, 30 s left"),
        ([slot(done=500)], 400, "copying records: 500 records, 50/s"),  # there are more than it was thought
        ([slot(done=9), slot(n=2, done=500, phase="planning")], None, "planning: 500 records, 50/s"),
        ([slot(done=3)], None, "copying records: 3 records"),
        (
            [slot(done=5 << 20, of=50 << 20, unit="bytes", phase="checking hashes")],
            7,
            "checking hashes: 5.0 MiB of 50.0 MiB, 512.0 KiB/s, 1 min 30 s left",
        ),
    ],
)
def test_what_a_person_reads(lines: list[str], expected: int | None, words: str) -> None:
    assert said(lines, expected) == words
