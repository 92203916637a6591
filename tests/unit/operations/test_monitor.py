# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Watching a released namespace: every verdict, the fence after a breach, a monitor that was killed and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import StaleAttempt, StoreUnavailable
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import monitor, monitor_result
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import rfc3339
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.unit.operations.operations_help import NS, Place, now_us

ROOT = Path(__file__).parents[3]


class Clock:
    """Time that passes only while the monitor sleeps; ``at[n]`` happens in the n-th sleep."""

    def __init__(self):
        self.now = now_us()
        self.at = {}
        self.sleeps = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.now += int(seconds * 1e6)
        action = self.at.get(len(self.sleeps))
        if action:
            action()


class Watched:
    def __init__(self, place):
        self.place, self.clock = place, Clock()
        self.values = place.fill(50)
        self.store = open_store(place.store)
        self.claim = self.store.claim(NS, "host:1:1", "an operator", new_incident="inc-1")
        self.clock.now = now_us()
        self.deadline = self.clock.now + 60_000_000

    def memory(self):
        return self.place.memory(clock=self.clock)

    def read(self, hits, misses=0):
        with self.memory() as memory:
            for number in range(hits):
                assert memory.read(NS, f"user/{number % 50:05d}") is not None
            for number in range(misses):
                memory.read(NS, f"absent/{number}")

    def run(self, **options):
        options = {
            "store_params": self.place.store, "keyring": self.place.keyring, "claim": self.claim, "namespace": NS,
            "deadline": self.deadline, "interval": 10, "clock": self.clock, "sleep": self.clock.sleep, **options,
        }  # fmt: skip
        result = monitor.monitor(**options)
        json.dumps(result)
        return result

    def state(self):
        with self.store.reader() as reader:
            return reader.namespace(NS).state


@pytest.fixture
def watched(place):
    found = Watched(place)
    yield found
    found.store.close()


@pytest.fixture
def watched_on(bench, tmp_path):
    """On every engine in turn."""
    found = Watched(Place(tmp_path, bench))
    yield found
    found.store.close()


def test_every_engine_counts_reads_finds_damage_and_fences(watched_on, bench):
    watched_on.clock.at = {
        1: lambda: watched_on.read(110, 10), 3: lambda: bench.raw("store").flip(NS, "user/00007")
    }  # fmt: skip
    result = watched_on.run()
    assert (result["samples"][1]["hits"], result["samples"][1]["misses"]) == (110, 10)
    assert (result["verdict"], result["fenced"]) == ("fail", True), result
    assert watched_on.state() == "quarantined"


def test_pass(watched):
    watched.clock.at = {1: lambda: watched.read(70), 3: lambda: watched.read(50, 10)}
    seen = []
    result = watched.run(on_sample=seen.append)
    assert result["verdict"] == "pass", result["reasons"]
    assert (result["changed"], result["fenced"], result["reasons"]) == (False, False, [])
    assert result["hit_rate"]["value"] == pytest.approx(120 / 130)
    assert result["deadline"] == rfc3339(watched.deadline)
    assert [(s["hits"], s["misses"]) for s in result["samples"]] == [
        (0, 0),
        (70, 0),
        (0, 0),
        (50, 10),
        (0, 0),
        (0, 0),
        (0, 0),
    ]
    assert seen == result["samples"]
    assert watched.clock.sleeps == [10] * 6
    assert watched.state() == "serving"


def test_no_reads_is_no_data_and_never_good(watched):
    watched.clock.at = {1: lambda: watched.read(99)}
    result = watched.run()
    assert result["verdict"] == "could-not-verify"
    assert result["hit_rate"]["value"] is None
    assert "no data: 99 reads" in result["reasons"][0]
    assert watched.state() == "serving"


def test_reads_before_the_release_do_not_count(watched):
    watched.read(500)
    watched.clock.now += 1_000_000
    watched.store.note(watched.claim, released_at=rfc3339(watched.clock.now))
    assert watched.run()["hit_rate"]["reads"] == 0


def test_reads_between_the_release_and_the_start_count(watched):
    released = watched.clock.now
    watched.read(150)
    watched.clock.now += 5_000_000
    assert watched.run(released_at=released)["verdict"] == "pass"


def test_a_low_hit_rate_puts_the_fence_back_at_once(watched):
    watched.clock.at = {2: lambda: watched.read(80, 40)}
    result = watched.run()
    assert (result["verdict"], result["fenced"], result["changed"]) == ("fail", True, True)
    assert result["breaches"] == ["hit rate 66.7% of 120 reads is below 80%"]
    assert len(watched.clock.sleeps) == 2
    assert watched.state() == "quarantined"
    again = watched.run()
    assert (again["verdict"], again["changed"], again["breaches"]) == ("fail", False, result["breaches"])


def test_the_threshold_can_be_set(watched):
    watched.clock.at = {2: lambda: watched.read(80, 40)}
    assert watched.run(slo=0.5)["verdict"] == "pass"


def test_an_application_that_meets_a_corrupt_record_is_a_breach(watched):
    def meet():
        watched.place.flip("user/00007")
        with watched.memory() as memory, pytest.raises(Exception):  # noqa: B017
            memory.read(NS, "user/00007")

    watched.clock.at = {1: meet}
    result = watched.run(scans=False)
    assert result["findings"] == {"corrupt-read": 1}
    assert (result["verdict"], watched.state()) == ("fail", "quarantined")


def test_a_damaged_new_record_is_a_breach(watched):
    def write():
        with watched.memory() as memory:
            memory.write(NS, "new", 1)
            memory.write(NS, "new2", 1)
        watched.place.flip("new")
        watched.place.rewrite("new2", payload=os.urandom(50))

    watched.clock.at = {1: write}
    result = watched.run(scans=False)
    assert result["findings"] == {"checksum": 1, "unopenable": 1}
    assert result["verdict"] == "fail"
    assert result["first_write_at"] is not None


@pytest.mark.parametrize("when", ["start", "end"])
def test_damage_that_nobody_reads_is_found_by_the_scans(watched, when):
    if when == "start":
        watched.place.flip("user/00033")
    else:
        watched.clock.at = {6: lambda: watched.place.flip("user/00033")}
    result = watched.run()
    assert (result["verdict"], result["findings"]) == ("fail", {"checksum": 1})
    assert result["examples"][0]["key"] == "user/00033"
    assert len(watched.clock.sleeps) == (0 if when == "start" else 6)
    assert watched.state() == "quarantined"


def test_new_error_lines_are_a_breach_and_old_ones_are_not(watched, tmp_path):
    log = tmp_path / "app.log"
    log.write_text("memory corrupt: long ago\n")

    def complain():
        with log.open("a") as stream:
            stream.write("decryption failed for token=abcdef123456\n")

    watched.clock.at = {1: lambda: watched.read(120), 2: complain}
    result = watched.run(logs=[str(log)])
    assert (result["verdict"], result["errors"]) == ("fail", {"decryption": 1})
    assert "abcdef123456" not in json.dumps(result)
    assert watched.state() == "quarantined"


def test_a_log_that_is_not_there_could_not_be_verified(watched, tmp_path):
    watched.clock.at = {1: lambda: watched.read(120)}
    result = watched.run(logs=[str(tmp_path / "absent.log")])
    assert result["verdict"] == "could-not-verify"
    assert "absent.log cannot be read" in result["reasons"][0]


def test_it_resumes_to_the_same_deadline_and_records_the_gap(watched, tmp_path):
    log = tmp_path / "app.log"
    log.write_text("")

    class Killed(BaseException):
        pass

    def die():
        raise Killed

    watched.clock.at = {1: lambda: watched.read(60), 3: die}
    with pytest.raises(Killed):
        watched.run(logs=[str(log)])
    watched.read(60)
    died = watched.clock.now
    watched.clock.now += 25_000_000
    claim = watched.store.claim(NS, "host:2:2", "an operator", new_incident="x", takeover="host:1:1")
    result = watched.run(claim=claim, deadline=watched.deadline + 10**9, logs=[str(log)])
    assert (result["verdict"], result["resumed"]) == ("pass", True)
    assert result["deadline"] == rfc3339(watched.deadline)
    assert result["hit_rate"]["reads"] == 120
    assert result["gaps"] == [{"from": rfc3339(died - 10_000_000), "to": rfc3339(died + 25_000_000)}]
    assert watched.clock.now == watched.deadline


def test_an_error_line_in_the_gap_is_found(watched, tmp_path):
    log = tmp_path / "app.log"
    log.write_text("")

    class Killed(BaseException):
        pass

    def die():
        raise Killed

    watched.clock.at = {1: die}
    with pytest.raises(Killed):
        watched.run(logs=[str(log)])
    log.write_text("memory corrupt\n")
    watched.clock.now = watched.deadline + 1
    result = watched.run(logs=[str(log)])
    assert (result["verdict"], watched.state()) == ("fail", "quarantined")


def test_after_another_release_it_watches_again(watched):
    watched.clock.at = {1: lambda: watched.read(10, 140)}
    assert watched.run()["verdict"] == "fail"
    watched.store.unfence(watched.claim)
    watched.clock.now += 1_000_000
    released = watched.clock.now
    watched.clock.at = {len(watched.clock.sleeps) + 1: lambda: watched.read(120)}
    result = watched.run(released_at=released, deadline=released + 30_000_000)
    assert (result["verdict"], result["hit_rate"]["reads"]) == ("pass", 120)


def test_a_monitor_that_was_taken_over_stops_and_touches_nothing(watched):
    def take_over():
        watched.store.claim(NS, "host:2:2", "somebody else", new_incident="x", takeover="host:1:1")
        watched.read(0, 200)

    watched.clock.at = {1: take_over}
    with pytest.raises(StaleAttempt):
        watched.run()
    assert watched.state() == "serving"


def test_the_lease_is_renewed(watched):
    until = []

    def look():
        until.append(watched.store.incident(watched.claim).renewed)

    watched.clock.at = dict.fromkeys((1, 3, 5), look)
    watched.run(interval=10)
    assert until == sorted(until)
    assert until[0] < until[1] < until[2]


def test_a_store_that_is_away_at_the_last_sample_could_not_be_verified(watched, monkeypatch):
    cls = type(watched.store)
    original = cls.reader

    def away(*_args, **_kwargs):
        raise StoreUnavailable("The store is busy.", "try again")

    watched.clock.at = {1: lambda: watched.read(120), 6: lambda: monkeypatch.setattr(cls, "reader", away)}
    result = watched.run(scans=False)
    monkeypatch.setattr(cls, "reader", original)
    assert result["verdict"] == "could-not-verify"
    assert "The store is busy." in result["reasons"][-1]


def test_a_verdict_that_cannot_be_noted_is_no_pass(watched, monkeypatch):
    cls = type(watched.store)
    original = cls.note

    def note(self, claim, **facts):
        if facts.get(monitor.FACT, {}).get("verdict"):
            raise StoreUnavailable("The store is a read-only replica.", "name the primary")
        return original(self, claim, **facts)

    monkeypatch.setattr(cls, "note", note)
    watched.clock.at = {1: lambda: watched.read(120)}
    result = watched.run()
    assert result["verdict"] == "could-not-verify"
    assert "The store is a read-only replica." in result["reasons"][-1]


def test_samples_in_the_facts_are_bounded_and_no_count_is_lost(watched, monkeypatch):
    monkeypatch.setattr(monitor_result, "MAX_KEPT", 20)
    watched.clock.at = {n: lambda: watched.read(12) for n in range(1, 90, 10)}
    result = watched.run(interval=0.5, deadline=watched.clock.now + 45_000_000, scans=False)
    assert len(watched.clock.sleeps) == 90
    assert 10 <= len(result["samples"]) <= 20
    assert sum(sample["hits"] for sample in result["samples"]) == result["hit_rate"]["hits"] == 108


CHILD = """
import json, sys
from ansible_collections.memops.agent_memory.plugins.module_utils._model import Claim
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.monitor import monitor
options = json.loads(sys.argv[1])
monitor(claim=Claim(**options.pop("claim")), on_sample=lambda sample: print("sample", flush=True), **options)
"""


def test_killed_for_real(watched):
    """SIGKILL between two samples; the next process goes on from what the store remembers."""
    watched.read(120)
    options = {
        "store_params": watched.place.store, "keyring": watched.place.keyring, "claim": watched.claim.__dict__,
        "namespace": NS, "deadline": now_us() + 60_000_000, "interval": 0.05,
        "released_at": watched.clock.now - 10_000_000,
    }  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / ".ansible/collections"), str(ROOT)])}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(options)], env=environment, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"sample\n"
    assert child.stdout.readline() == b"sample\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    late = options["deadline"] - now_us()  # who goes on comes when the watch is over
    result = watched.run(deadline=0, interval=0.05, clock=lambda: now_us() + late, sleep=time.sleep)
    assert (result["verdict"], result["resumed"], result["hit_rate"]["reads"]) == ("pass", True, 120)
    assert result["deadline"] == rfc3339(options["deadline"])
    assert len(result["gaps"]) == 1
