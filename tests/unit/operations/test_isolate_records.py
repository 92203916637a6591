# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Single records go out of service and come back as they were, on every engine."""

from __future__ import annotations

import dataclasses
import os
import signal
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils._inputs import rfc3339
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    held_records,
    incident,
    isolate_records,
    release_records,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_choice import choose
from tests.unit.operations.isolate_help import CHOSEN, VALUES, filled, isolate, release, scan, told
from tests.unit.operations.runbook import NS, OTHER, Site, attempt


@pytest.fixture
def site(bench, tmp_path):
    return filled(tmp_path / "site", bench)


@pytest.mark.parametrize(
    "chosen", [{"keys": CHOSEN}, {"pattern": "user/01?"}, {"keys": CHOSEN[:3], "pattern": "user/01[3-9]"}]
)
def test_the_chosen_go_the_namespace_serves_and_all_come_back_as_they_were(site, chosen):
    before, calm = site.rows(), site.untouched()
    looked = scan(site)
    checked = isolate(site, check=True, **chosen)
    assert (checked["changed"], checked["isolated"], checked["record_keys"]) == (True, 10, CHOSEN)
    assert site.rows() == before and told(site) == 0
    went = isolate(site, **chosen)
    assert (went["changed"], went["isolated"], went["record_keys"], went["refused_keys"]) == (True, 10, CHOSEN, [])
    with site.memory() as memory:
        assert set(memory.list_keys(NS)) == set(VALUES) - set(CHOSEN) - {"user/029"}
        assert memory.read_many(NS, CHOSEN) == {}
        assert not any(key in CHOSEN for key, _score, _value in memory.search(NS, "12 n", limit=100))
        assert not memory.delete(NS, CHOSEN[0])
        assert memory.read(NS, "user/009") == {"n": 9}
    assert {key: rows[-1] for key, rows in site.aside().items() if key in CHOSEN} == {k: before[k] for k in CHOSEN}
    assert (told(site), told(site, OTHER), site.state()) == (10, 0, "serving")
    again = isolate(site, **chosen)
    assert (again["changed"], again["isolated"], again["already"]) == (False, 0, 10)
    assert scan(site) == looked
    assert (release(site, check=True)["released"], told(site)) == (10, 10)
    back = release(site)
    assert (back["changed"], back["released"], back["conflicts"], back["record_keys"]) == (True, 10, 0, CHOSEN)
    assert (site.rows(), scan(site), told(site), site.untouched()) == (before, looked, 0, calm)
    assert (release(site)["changed"], release(site)["released"]) == (False, 0)
    with site.open() as store, store.reader() as reader:
        assert reader.log_health()["intact"]
        assert [one.state for one in store.incidents(NS)] == ["closed", "closed"]
    with site.memory() as memory:
        assert memory.read_many(NS, CHOSEN) == {key: VALUES[key] for key in CHOSEN}
        memory.write(NS, CHOSEN[0], "newer")
        assert memory.read(NS, CHOSEN[0]) == "newer"


def test_a_time_range_is_by_the_last_write(site):
    with site.memory() as memory:
        memory.write(NS, "user/003", "suspicious")
        memory.write(NS, "new", "suspicious")
    rows = site.rows()
    since, until = rfc3339(rows["user/003"][4]), rfc3339(rows["new"][4])
    assert isolate(site, since=since, until=until, check=True)["record_keys"] == ["new", "user/003"]
    assert isolate(site, since=since, pattern="user/*")["record_keys"] == ["user/003"]
    assert isolate(site, since=since)["record_keys"] == ["new"]
    assert release(site, since=since, pattern="n*")["record_keys"] == ["new"]
    assert release(site)["record_keys"] == ["user/003"]
    assert site.rows() == rows


def test_only_the_chosen_come_back(site):
    before = site.rows()
    isolate(site, pattern="user/01*")
    assert release(site, keys=[CHOSEN[4]])["record_keys"] == [CHOSEN[4]]
    assert release(site, keys=[CHOSEN[4]])["changed"] is False
    assert release(site, pattern="user/01[01]")["released"] == 2
    assert told(site) == 7
    assert isolate(site, keys=CHOSEN)["isolated"] == 3
    assert release(site)["released"] == 10
    assert site.rows() == before


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"keys": ["user/001", "nobody", "user/029"]}, "'nobody', 'user/029'"),
        ({"pattern": "nobody-*"}, "nobody-*"),
        ({"since": "2200-01-01T00:00:00Z"}, "2200-01-01"),
    ],
)
def test_what_is_not_there_is_one_sentence_and_changes_nothing(site, chosen, words):
    before = site.rows()
    for step in (isolate, release):
        for check in (True, False):
            with pytest.raises(errors.InvalidInput) as caught:
                step(site, check=check, **chosen)
            assert words in caught.value.message and "nothing was changed" in caught.value.message
    assert site.rows() == before
    with site.open() as store:
        assert store.incidents(NS) == []


def test_an_unknown_key_beside_a_pattern_is_told(site):
    found = isolate(site, keys=["nobody"], pattern="user/01*")
    assert (found["isolated"], found["unknown_keys"]) == (10, ["nobody"])
    assert "'nobody'" in found["warnings"][0]


@pytest.mark.parametrize(
    "chosen",
    [
        {"keys": []},
        {"pattern": ""},
        {"until": "2026-01-01T00:00:00Z"},
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
        {"keys": ["\0memops/canary"]},
    ],
)
def test_a_choice_that_cannot_be_meant_is_refused(chosen):
    with pytest.raises(errors.InvalidInput):
        choose(**chosen)


def test_nothing_chosen_is_the_whole_namespace():
    assert choose() is None


def test_a_newer_write_is_a_conflict_and_the_isolated_record_stays(site):
    before = site.rows()
    isolate(site, keys=CHOSEN)
    with site.memory() as memory:
        memory.write(NS, CHOSEN[2], "newer")
        memory.write(NS, CHOSEN[3], "newer, and deleted")
        memory.delete(NS, CHOSEN[3])
    assert told(site) == 8
    back = release(site)
    assert (back["released"], back["conflicts"], back["conflict_keys"]) == (8, 2, CHOSEN[2:4])
    assert repr(CHOSEN[2]) in back["warnings"][0]
    with site.memory() as memory:
        assert memory.read(NS, CHOSEN[2]) == "newer"
        assert memory.read(NS, CHOSEN[3]) is None
    assert before[CHOSEN[2]] in site.aside()[CHOSEN[2]] and before[CHOSEN[3]] in site.aside()[CHOSEN[3]]
    assert release(site)["changed"] is False


def test_the_newest_of_two_isolated_versions_comes_back(site):
    isolate(site, keys=CHOSEN[:1])
    with site.memory() as memory:
        memory.write(NS, CHOSEN[0], "second")
    second = site.rows()[CHOSEN[0]]
    isolate(site, keys=CHOSEN[:1])
    back = release(site)
    assert (back["released"], back["conflict_keys"]) == (1, CHOSEN[:1])
    assert site.rows()[CHOSEN[0]] == second


def test_damaged_records_and_those_that_no_key_opens_are_kept_bit_for_bit(site):
    site.raw.flip(NS, CHOSEN[0])
    site.raw.set(NS, CHOSEN[1], key_id="0123456789abcdef")
    site.raw.set(NS, CHOSEN[2], checksum=b"\0" * 32)
    before, looked = site.rows(), scan(site)
    assert looked["damaged"] == 3
    assert isolate(site, keys=CHOSEN)["isolated"] == 10
    assert scan(site)["damaged"] == 0
    assert release(site)["released"] == 10
    assert (site.rows(), scan(site)) == (before, looked)


def test_what_cannot_be_put_back_as_it_is_stays_where_it_is(site):
    site.raw.set(NS, CHOSEN[0], sequence=1 << 40)
    before = site.rows()
    with pytest.raises(errors.InvalidInput, match="too damaged"):
        isolate(site, keys=CHOSEN)
    assert site.rows() == before
    found = isolate(site, pattern="user/01*")
    assert found["isolated"] == 9 and "too damaged" in found["warnings"][0]
    assert site.rows()[CHOSEN[0]] == before[CHOSEN[0]]


def test_records_of_a_quarantined_namespace_go_and_come_while_it_stays_quarantined(site):
    run = attempt()
    site.step("isolate", run)
    found = isolate(site, run=run, keys=CHOSEN)
    assert found["isolated"] == 10 and "stays quarantined" in found["detail"]
    assert found["incident"] == incident_of(site)
    assert "stays quarantined" in release(site, run=run, keys=CHOSEN[:3])["detail"]
    assert site.state() == "quarantined"
    site.step("release", run)
    assert (site.state(), told(site), release(site, run=run)["released"], told(site)) == ("serving", 7, 7, 0)


def incident_of(site):
    with site.open() as store:
        return next(one.incident for one in store.incidents(NS) if one.state == "open")


def test_a_standby_copy_is_refused(site):
    with site.open() as store:
        claim = incident.claim(store, NS, attempt())
        store.set_state(claim, "standby")
        store.close_incident(claim)
    for step in (isolate, release):
        with pytest.raises(errors.CannotProceed, match="standby"):
            step(site, keys=CHOSEN)
    assert release(site)["changed"] is False


def test_a_second_operator_is_refused(site):
    with site.open() as store:
        incident.claim(store, NS, attempt())
    before = site.rows()
    with pytest.raises(errors.LeaseHeld):
        isolate(site, keys=CHOSEN)
    assert site.rows() == before


@pytest.mark.parametrize("place", range(4))
def test_killed_in_between_the_same_command_finishes(site, monkeypatch, place):
    before = site.rows()
    for module in (held_records, release_records):
        monkeypatch.setattr(module, "BATCH", 3)
    for step, chosen in ((isolate, {"pattern": "user/01*"}), (release, {})):
        run = dataclasses.replace(attempt(), owner="who is killed")
        child = os.fork()
        if not child:
            left = iter(range(place))

            def dying(store, claim, last, left=left):
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return last

            isolate_records.renew = release_records.renew = dying
            try:
                step(site, run=run, **chosen)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        assert told(site) not in ((0,) if step is isolate else (10,))
        if place < 3:  # then there was more to do
            assert 0 < told(site) < 10
        step(site, run=dataclasses.replace(attempt(), takeover=run.attempt), **chosen)
        assert told(site) == (10 if step is isolate else 0)
    assert site.rows() == before
    with site.open() as store, store.reader() as reader:
        assert {one.state for one in store.incidents(NS)} == {"closed"}
        assert reader.log_health()["intact"]


def test_a_record_that_is_written_while_it_goes_is_looked_at_again(site, monkeypatch):
    original = isolate_records._Taker._tombstone
    wrote = []

    def writing(self, row):
        if not wrote:
            wrote.append(row)
            with site.memory() as memory:
                memory.write(NS, CHOSEN[0], "just now")
        return original(self, row)

    monkeypatch.setattr(isolate_records._Taker, "_tombstone", writing)
    assert isolate(site, pattern="user/01*")["isolated"] == 10
    assert release(site)["released"] == 10
    with site.memory() as memory:
        assert memory.read(NS, CHOSEN[0]) == "just now"


KEYS = [f"{name}{n}" for name in ("a", "b/") for n in range(4)]
OPERATION = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(KEYS), st.integers()),
    st.tuples(st.just("delete"), st.sampled_from(KEYS)),
    st.tuples(st.just("isolate"), st.sampled_from([*KEYS, "a*", "b*", "*2"])),
    st.tuples(st.just("release"), st.sampled_from([None, *KEYS, "a*"])),
)


@settings(max_examples=25)
@given(st.lists(OPERATION, max_size=12))
def test_like_a_dict_with_a_drawer(steps):
    """``serving`` is what is read; ``drawer`` what is isolated and has no newer record in its place."""
    import fnmatch

    with tempfile.TemporaryDirectory() as folder:
        site = Site(folder)
        serving, drawer = {}, {}
        with site.memory() as memory:
            memory.write(NS, "z", 0)
        for kind, name, *value in steps:
            if kind in ("write", "delete"):
                with site.memory() as memory:
                    if kind == "write":
                        memory.write(NS, name, value[0])
                        serving[name] = value[0]
                        drawer.pop(name, None)
                    else:
                        assert memory.delete(NS, name) is (name in serving)
                        serving.pop(name, None)
                continue
            chosen = {} if name is None else {"pattern": name} if "*" in name else {"keys": [name]}
            step = isolate if kind == "isolate" else release
            source, target = (serving, drawer) if kind == "isolate" else (drawer, serving)
            meant = [key for key in [*serving, *drawer] if name is None or fnmatch.fnmatchcase(key, name)]
            moving = [key for key in source if key in meant]
            try:
                found = step(site, **chosen)
            except errors.InvalidInput:
                assert not meant
            else:
                assert found["changed"] is bool(moving)
                for key in moving:
                    target[key] = source.pop(key)
            assert told(site) == len(drawer)
        rest = site.served()
        assert rest.pop("z") == 0 and rest == serving
        assert scan(site)["verdict"] == "pass"
        back = release(site)
        assert back["released"] == len(drawer)
        assert site.served() == {"z": 0, **serving, **drawer}
        assert scan(site)["verdict"] == "pass"
