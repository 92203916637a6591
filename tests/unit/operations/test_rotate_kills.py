# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Key rotation that is cut short: killed, taken over, failing at any call of the store. The same command goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    StaleAttempt,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import rotate
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.unit.operations.operations_help import NS, Place
from tests.unit.operations.rotate_help import assert_all_open, holder, live_writer, open_incidents, run

ROOT = Path(__file__).parents[3]


def test_killed_between_the_intent_and_the_note_no_second_key_is_made(place, monkeypatch):
    values = place.fill(20)
    original = rotate._Run._namespace
    note = rotate.open_store(place.store).__class__.note

    class Killed(BaseException):
        pass

    calls = []

    def die_after_the_key(self, claim, **facts):
        calls.append(facts)
        if len(calls) == 2:  # the intent is noted, the key is made
            raise Killed
        return note(self, claim, **facts)

    monkeypatch.setattr(rotate.open_store(place.store).__class__, "note", die_after_the_key)
    with pytest.raises(Killed):
        run(place, force=True)
    monkeypatch.undo()
    assert rotate._Run._namespace is original
    assert len(place.ring().ids()) == 2
    result = run(place, attempt="host:2:2", takeover="host:1:1", force=True)
    assert (result["resumed"], result["key_created"]) == (True, False)
    assert len(place.ring().ids()) == 2
    assert_all_open(place, values)


def test_killed_right_after_the_claim_the_incident_is_closed_by_the_next_run(place, monkeypatch):
    place.fill(5)

    class Killed(BaseException):
        pass

    def die(*_args, **_facts):
        raise Killed

    monkeypatch.setattr(type(open_store(place.store)), "note", die)
    with pytest.raises(Killed):
        run(place, force=True)
    monkeypatch.undo()
    assert len(open_incidents(place)) == 1
    result = run(place, attempt="host:2:2", takeover="host:1:1")
    assert (result["changed"], result["complete"]) == (False, True)
    assert not open_incidents(place)


def test_an_attempt_that_was_taken_over_can_do_no_harm(place):
    values = place.fill(200)

    def take_over(_progress):
        store = open_store(place.store)
        store.claim(NS, "host:2:2", "somebody else", new_incident="x", takeover="host:1:1")
        store.close()

    with pytest.raises(StaleAttempt):
        run(place, force=True, batch=20, progress=take_over)
    assert run(place, attempt="host:2:2")["complete"] is True
    assert_all_open(place, values)


@pytest.mark.parametrize("failing", range(1, 12))
def test_a_fault_at_the_nth_store_call_loses_nothing(place, monkeypatch, failing):
    values = place.fill(60)
    cls = open_store(place.store).__class__
    calls = []

    def faulty(name):
        original = getattr(cls, name)

        def call(self, *args, **kwargs):
            calls.append(name)
            if len(calls) == failing:
                raise StoreUnavailable("The disk is full.", "free space")
            return original(self, *args, **kwargs)

        monkeypatch.setattr(cls, name, call)

    for name in ("claim", "note", "reseal", "log_operation", "close_incident", "incident"):
        faulty(name)
    try:
        run(place, force=True, batch=20)
        assert len(calls) < failing
    except StoreUnavailable:
        pass
    monkeypatch.undo()
    assert place.values(list(values)) == values, "readable in the middle, too"
    again = run(place, attempt="host:2:2", takeover="host:1:1")
    assert again["complete"] is True
    assert len({row[7] for row in place.rows()}) == 1
    assert len(place.ring().ids()) <= 2
    assert_all_open(place, values)


CHILD = """
import json, sys
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.rotate import rotate
options = json.loads(sys.argv[1])
print("begins", flush=True)
rotate(**options)
"""


def start(place, **options):
    options = {"store_params": place.store, "keyring": place.keyring, "owner": "o", "namespace": NS, **options}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / ".ansible/collections"), str(ROOT)])}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(options)], env=environment, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"begins\n"
    return child


@settings(max_examples=6)
@given(delays=st.lists(st.floats(0, 0.3), min_size=1, max_size=3), seed=st.integers(0, 2**16))
def test_killed_at_random_instants_with_a_live_writer(delays, seed):
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        values = place.fill(3000)
        with live_writer(place, random.Random(seed), 3000) as written:
            for number, delay in enumerate(delays):
                child = start(place, attempt=f"a:{number}:1", takeover=holder(place), force=number == 0, batch=200)
                time.sleep(delay)
                child.send_signal(signal.SIGKILL)
                child.wait()
                child.stdout.close()
        last = run(place, attempt="last:1:1", takeover=holder(place))
        assert last["complete"] is True
        values.update(written)
        assert len({row[7] for row in place.rows()}) == 1
        assert {row[7] for row in place.rows()} == {place.ring().active_id}
        assert len(place.ring().ids()) <= 2
        assert_all_open(place, values)
        assert not open_incidents(place)
