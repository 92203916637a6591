# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Memory objects that raise, hang, end, lie or lack something: an error in words or a finding, never a wrong memory."""

from __future__ import annotations

import os
import tempfile

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec
from ansible_collections.memops.agent_memory.plugins.module_utils._engines import python, python_reader
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    CapabilityMissing,
    InvalidInput,
    NamespaceUnknown,
    StoreDamaged,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._model import Change
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    application_benchmark,
    diagnose_step,
    integrity,
    rotate,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.hit_rate import Measured
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import claim
from ansible_collections.memops.agent_memory.plugins.module_utils._python_values import pack, record
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.unit.objects.objects_help import ObjectSite, written
from tests.unit.operations.runbook import NS, attempt

CLASS = "from tests.support.notebook import FencedNotebook\nclass Mine(FencedNotebook):\n"


@pytest.fixture
def make(tmp_path):
    """A site whose object is a FencedNotebook with this body."""

    def made(body, count=5, **more):
        written(tmp_path, CLASS + "".join(f"    {line}\n" for line in body.splitlines()) + "    pass\n")
        one = ObjectSite(tmp_path, "mine:Mine", **more)
        one.fill(count=count)
        return one

    return made


def scanned(site):
    return integrity.scan(store_params=site.store, keyring=None, namespace=NS)


# --- what makes it --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"factory": None}, "memory_store.factory is None, not package.module:factory"),
        ({"factory": "no colon"}, "not package.module:factory"),
        ({"arguments": [1]}, "arguments is no mapping"),
        ({"arguments": {"path": object()}}, "holds what is no plain value"),
        ({"call_timeout": "soon"}, "call_timeout is 'soon', not a number"),
        ({"namespaces": "agent-7"}, "namespaces is 'agent-7', not a list"),
        ({"factory": "not_there:make"}, "cannot be made: ModuleNotFoundError: No module named .*python_path"),
        ({"factory": "tests.support.notebook:Diary"}, "cannot be made: AttributeError"),
        ({"arguments": {"file": "x"}}, "cannot be made: TypeError.*unexpected keyword argument"),
        ({"layout": "native"}, "engine python cannot run the layout native"),
        ({"engine": "sqlite"}, "engine sqlite cannot run the layout python"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(tmp_path, more, said):
    with pytest.raises(InvalidInput, match=said):
        store = open_store({**ObjectSite(tmp_path).store, **more})
        try:
            store.capabilities()
        finally:
            store.close()


def test_the_file_belongs_to_one_object(tmp_path):
    site = ObjectSite(tmp_path)
    site.fill(count=1)
    site.backup()
    with pytest.raises(InvalidInput, match=r"belongs to the memory object of .*FencedNotebook, not of .*:Notebook"):
        open_store({**site.store, "factory": "tests.support.notebook:Notebook"})
    with pytest.raises(InvalidInput, match="but not a memory store"):
        open_store({**site.store, "path": site.notes})
    with site.open() as store, store.reader() as reader, pytest.raises(NamespaceUnknown, match="list it in"):
        reader.namespace("agent-9")


def test_nothing_is_left_of_a_look(tmp_path, monkeypatch):
    site = ObjectSite(tmp_path)
    site.fill(count=1)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    with open_store(site.store).reader() as reader:  # as a worker does
        assert reader.count(NS) == 4
        assert [row[0] for rows in reader.scan(NS) for row in rows][0] == "empty"
    with site.open() as store, store.reader() as reader:
        assert reader.namespace(NS).state == "serving" and os.listdir(tmp_path / "scratch")
    assert not os.listdir(tmp_path / "scratch") and not os.path.exists(site.path)


# --- what it lacks --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "act", "said"),
    [
        ("list_keys", scanned, "has no method list_keys, which every step needs"),
        ("read", scanned, "has no method read, which every step needs"),
        ("rotate_keys", lambda site: rotate.rotate(store_params=site.store, keyring=site.ring()),
         "has no method rotate_keys, which the rotation of keys needs"),
    ],
)  # fmt: skip
def test_a_method_that_is_missing_is_named_with_what_needs_it(make, method, act, said):
    site = make(f"{method} = None")
    with pytest.raises(CapabilityMissing, match=said):
        act(site)


def test_without_delete_nothing_is_changed(make):
    site = make("delete = None")
    rows = site.everything()
    with site.open() as store:
        held = claim(store, NS, attempt())
        store.fence(held)
        target = store.begin_generation(held)
        with store.reader() as reader:
            active = reader.namespace(NS).generation
        for act in (lambda: store.switch(held, target, active), lambda: store.change(held, [Change("x", None, None)])):
            with pytest.raises(CapabilityMissing, match="has no method delete, which a rebuild, a restore"):
                act()
    assert site.everything() == rows and site.state() == "quarantined"


def test_a_warning_is_about_what_a_repair_needs_and_not_about_what_an_object_may_lack(make):
    site = make("get_access_logs = evaluate_benchmark = rotate_keys = quarantine = None")
    with site.open() as store:
        said = store.warnings()
    assert len(said) == 1 and "memory_outside_fence" in said[0]
    assert not [one for one in site.backup()["warnings"] if "fuzzy" in one]  # no snapshot of it is anything else
    with make("delete = None").open() as store:
        assert "the memory object has no delete: nothing can be repaired" in " ".join(store.warnings())


# --- what it does ---------------------------------------------------------------------------------------------------
READING = {
    "raise ValueError('no')": "read raised ValueError: no",
    "raise KeyError('version')": "read raised KeyError: 'version'",
    "raise SystemExit(3)": "read raised SystemExit: 3",
    "return object()": "something of the type object is in it",
    "return (1, 2)": "something of the type tuple is in it",
    "return {1: 2}": "a key of the type int",
    "return [float('nan')]": "nan is in it",
    "return ['\\udc80']": "not valid Unicode",
    "import os; os._exit(7)": "ended its process (status 7)",
    "import time; time.sleep(600)": "did not answer within 3 s",
}


def test_a_record_that_cannot_be_read_costs_that_record(make):
    cases = "".join(f"    if key == 'bad {n}':\n        {body}\n" for n, body in enumerate(READING))
    site = make(
        f"def read(self, namespace, key):\n    print('noise')\n{cases}    return super().read(namespace, key)",
        call_timeout=3.0,
    )
    for number in range(len(READING)):
        site.app.write(NS, f"bad {number}", "x")
    found = scanned(site)
    assert found["findings"] == {"unreadable": len(READING)} and found["verdict"] == "fail"
    assert found["rows"] == 8 + len(READING)
    for one in found["examples"]:
        assert list(READING.values())[int(one["key"][4:])] in one["evidence"], one


def test_an_object_that_answers_nothing_is_told_as_such(make, monkeypatch):
    monkeypatch.setattr(python_reader, "MOST_STOPS", 0)
    site = make("def read(self, namespace, key):\n    import time\n    time.sleep(600)", call_timeout=3.0)
    with pytest.raises(StoreUnavailable, match=r"read of the memory object of mine:Mine did not answer within 3 s"):
        scanned(site)


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ("return None", StoreDamaged, "list_keys gave NoneType"),
        ("return 'note 001'", StoreDamaged, "list_keys gave str"),
        ("raise OSError('disk')", StoreUnavailable, "list_keys of the memory object of mine:Mine raised OSError: disk"),
        ("while True: pass", StoreUnavailable, "list_keys of the memory object of mine:Mine did not answer within"),
    ],
)
def test_keys_that_are_not_listed_are_an_error(make, body, kind, said):
    site = make(f"def list_keys(self, namespace):\n    {body}", call_timeout=3.0)
    with pytest.raises(kind, match=said):
        scanned(site)


def test_a_list_without_an_end_ends(make, monkeypatch):
    monkeypatch.setattr(python_reader, "MOST_NAMES", 20_000)
    site = make("def list_keys(self, namespace):\n    while True:\n        yield 'the same'")
    found = scanned(site)
    assert found["verdict"] == "fail" and "list_keys did not end after 20,000 names" in found["examples"][0]["evidence"]


def test_names_that_are_no_keys_and_keys_named_twice_are_findings(make):
    site = make(
        "def list_keys(self, namespace):\n    yield from super().list_keys(namespace)\n    yield 'note 001'\n"
        "    yield 5\n    yield ''\n    yield b'bytes'\n    yield 'vanished'"
    )
    found = scanned(site)
    assert found["structure"] == [
        "list_keys('agent-7') names 3 that are no keys: 5, '', b'bytes'",
        "list_keys('agent-7') names keys twice (1 too many)",
    ]  # fmt: skip
    assert found["rows"] == 9 - 1 and not found["damaged"]  # what vanished between list and read is no record


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("pass", "write of the memory object was called for 'note 001', and what read gives then is not"),
        ("raise ValueError('full')", "write of the memory object of mine:Mine raised ValueError: full"),
        ("import os; os._exit(1)", "write of the memory object of mine:Mine ended its process"),
        ("super().write(namespace, key, [data], reason)", "not what was written"),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_a_write_that_does_not_write_leaves_the_quarantine(make, body, said, whole):
    site = make(
        "def write(self, namespace, key, data, reason=None):\n    if reason and reason.startswith('memops inc'):\n"
        f"        {body}\n    else:\n        super().write(namespace, key, data, reason)"
    )
    run = attempt()
    with site.open() as store:
        held = claim(store, NS, run)
        store.fence(held)
        with store.reader() as reader:
            row, active = reader.get_many(NS, ["note 001"])["note 001"], reader.namespace(NS).generation
        wanted = record(RecordCodec(NS), "note 001", pack("repaired"))
        with pytest.raises((CannotProceed, StoreUnavailable), match=said):
            if whole:
                target = store.begin_generation(held)
                store.load(held, target, [wanted])
                store.switch(held, target, active)
            else:
                store.change(held, [Change("note 001", row[9], wanted, "repair: a test")])
        if whole:
            with pytest.raises(CannotProceed, match="in the middle of being replaced"):
                store.unfence(held)
    assert site.state() == "quarantined"


def test_a_record_that_changes_under_our_hands_is_not_overwritten(make):
    site = make("")
    site.backup()
    run = attempt()
    site.step("isolate", run)
    with site.open() as store:
        held = claim(store, NS, run)
        with store.reader() as reader:
            rows = reader.get_many(NS, ["note 001", "note 002"])
        site.app._operator = True  # somebody passes the fence
        site.app.write(NS, "note 001", "newer")
        change = [Change(key, row[9], None, "lost: a test") for key, row in rows.items()]
        assert store.change(held, change) == ["note 001"]
    assert site.app.read(NS, "note 001") == "newer" and site.app.read(NS, "note 002") is None
    assert list(site.aside()) == ["note 002"]


# --- what it says of itself -----------------------------------------------------------------------------------------
RATING = {
    "return 0.79": ("fail", "hit rate 79.0%, 80% is needed"),
    "return {'hit_rate': 0.9, 'accuracy': 0.2}": ("pass", "no baseline to compare with"),
    "return {'accuracy': 0.9}": ("could-not-verify", "no baseline to compare with"),
    "return 'good'": ("could-not-verify", "evaluate_benchmark gave 'good', which is no share from 0 to 1"),
    "return True": ("could-not-verify", "gave True, which is no share"),
    "return {'score': 1}": ("could-not-verify", "neither hit_rate nor accuracy"),
    "return None": ("could-not-verify", "neither hit_rate nor accuracy"),
    "raise RuntimeError('x')": ("could-not-verify", "raised RuntimeError: x"),
    "import time; time.sleep(600)": ("could-not-verify", "did not answer within"),
    "return object()": ("could-not-verify", "gave '<object>'"),
}


def test_its_own_benchmark_counts_for_what_it_is_worth(make):
    cases = "".join(f"    if namespace == '{n}':\n        {body}\n" for n, body in enumerate(RATING))
    site = make(f"def evaluate_benchmark(self, namespace):\n{cases}    return 1", call_timeout=3.0)
    with site.open() as store:
        for number, (verdict, said) in enumerate(RATING.values()):
            found = application_benchmark.judged(application_benchmark.rating(store, str(number)), 0.8, None, 0.3)
            assert found["verdict"] == verdict and said in found["why"], found
    for rating, verdict in (((0.9, 0.5, None), "fail"), ((None, 0.8, None), "pass")):
        judged = application_benchmark.judged(application_benchmark.Rating(*rating), 0.8, 0.5, 0.3)
        assert judged["verdict"] == verdict


def test_a_watch_asks_a_benchmark_that_tells_a_hit_rate(make):
    body = "return {'low': 0.79, 'other': {'accuracy': 1}}[namespace]"
    site = make(f"def evaluate_benchmark(self, namespace):\n    {body}")
    with site.open() as store:
        assert application_benchmark.asked(store, "other") is None
        low, broken = application_benchmark.asked(store, "low"), application_benchmark.asked(store, "nobody")
        assert low.measure(0, 1) == Measured("evaluate_benchmark", 0.79, at=1)
        assert low.measure(0, 2).at == 1 and low.measure(0, 60_000_001).at == 60_000_001  # not each time anew
        assert broken.measure(0, 1).value is None and "raised KeyError: 'nobody'" in broken.measure(0, 1).why


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 7", "get_access_logs gave int"),
        ("raise OSError('gone')", "raised OSError: gone"),
        ("while True:\n        yield {'operation': 'write', 'at': 1}", "did not end after 3,000 entries"),
    ],
)
def test_an_access_log_that_cannot_be_read_is_a_doubt(make, monkeypatch, body, said):
    monkeypatch.setattr(python, "MOST_ENTRIES", 3000)
    site = make(f"def get_access_logs(self, namespace):\n    {body}")
    with site.open() as store:
        found = diagnose_step.investigate(
            store=store, store_params=site.store, namespace=NS, keyring=site.ring(), repository=None, name="main",
            run=attempt(), check=True,
        )  # fmt: skip
    assert [doubt for doubt in found["doubts"] if said in doubt], found["doubts"]


def test_its_access_log_is_evidence(make):
    site = make("")
    for number in range(60):
        site.app.write(NS, f"bulk {number}", "x", reason="import")
    site.app.write(NS, "bulk 0", "x", reason="decryption failed: InvalidTag")
    with site.app._file() as con:
        con.execute("UPDATE log SET at = 1767225600.5 WHERE operation = 'write'")
    with site.open() as store:
        found = diagnose_step.investigate(
            store=store, store_params=site.store, namespace=NS, keyring=site.ring(), repository=None, name="main",
            run=attempt(), check=True,
        )  # fmt: skip
    assert found["own_log"]["operations"]["write"] == 69
    assert found["errors_seen"][0]["kind"] == "decryption" and found["errors_seen"][0]["count"] == 1
    assert "has 69 writes and deletions within one second, 2026-01-01T00:00:00.000Z" in found["doubts"][0]


def test_a_rotation_that_does_harm_is_an_error_that_names_what_is_lost(make):
    site = make("def rotate_keys(self):\n    with self._file() as con:\n"
                "        con.execute(\"UPDATE notes SET data = 'xx' WHERE key = 'note 001'\")")  # fmt: skip
    with pytest.raises(CannotProceed, match=r"did harm\. 1 record .* such as 'note 001' of agent-7"):
        rotate.rotate(store_params=site.store, keyring=site.ring())
    other = make("def rotate_keys(self):\n    raise OSError('kms is away')")
    with pytest.raises(CannotProceed, match=r"rotate_keys .*raised OSError: kms is away\. 0 records"):
        rotate.rotate(store_params=other.store, keyring=other.ring(), force=True, takeover=None, attempt="other")
