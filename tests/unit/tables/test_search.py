# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Probes through the frameworks' own search, in the application's own Python, past the fence and without a trace."""

from __future__ import annotations

import json
import math
import os
import pathlib
import re
import sys
import threading

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._benchmark import parse
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CapabilityMissing, InvalidInput
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    monitor_step,
    preflight,
    validate_step,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from ansible_collections.memops.agent_memory.plugins.module_utils._search import NoAnswer, evaluate, search_of
from tests.support.frameworks import former_mem0, frameworks
from tests.support.postgresql_server import OWNER
from tests.unit.operations.runbook import NAME, NS, attempt
from tests.unit.tables.sqlite_help import LanggraphSite
from tests.unit.tables.tables_help import Framework

SUPPORT = str(pathlib.Path(__file__).parents[2] / "support")
CASES = (
    {"query": f"fact 3 of {NS}", "expect": "fact 00003"},
    {"query": f"fact 4 of {NS}", "expect": f"fact 4 of {NS}"},
    {"query": "note 2", "expect": "notes/note 2"},
    {"query": "slash", "expect": "a%2Fb"},
    {"key": "fact 00001", "expect": {"text": f"fact 1 of {NS}", "n": 1}},
    {"key": "notes/note 1", "expect": "NOTE 1", "match": "contains"},
)


def search(factory, **options):
    arguments = options.pop("arguments", {})
    return {
        "factory": f"search_factories:{factory}", "arguments": arguments, "python_path": [SUPPORT],
        "interpreter": frameworks(), "timeout": 300, **options,
    }  # fmt: skip


def asked(site, given, cases=CASES, namespace=NS):
    with site.open() as store, store.reader() as reader:
        return evaluate(store, search_of(given), namespace, parse(cases), reader)


@pytest.fixture
def site(site):
    site.fill(count=10)
    return site


def test_what_is_there_is_found_behind_the_fence_and_no_expiry_is_put_off(site):
    dump = site.dump_of()
    site.put(f"{NS}0", {"other": {"text": "is another's"}})
    site.step("isolate", attempt())
    assert not site.view()["items"]
    cases = [*CASES, {"query": "ends some day", "expect": "short"}, {"query": "is another's", "expect": "is another's"}]
    found = asked(site, search("langgraph_former", arguments={"more": f"{NS}0"}, top=3), cases)
    assert (found["passed"], found["asked"]) == (7, "search")
    assert found["failed"] == [{"line": 8, "why": "not among the first 3 results"}]
    site.close_by_release(NS)
    assert site.dump_of() == dump


def benchmark(site, cases=CASES):
    path = os.path.join(site.folder, "benchmark.jsonl")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("".join(json.dumps(case) + "\n" for case in cases))
    return path


def lose(site):
    site.app.ask("delete", namespace=[NS], keys=["fact 00003", "a/b"])
    site.put(NS, {"fact 00001": {"text": "garbage"}})


def test_a_rebuild_is_judged_and_watched_by_what_the_framework_finds(site):
    cases, given = benchmark(site), search("langgraph", top=1)
    site.backup()
    started, run = now_us(), attempt()
    lose(site)
    site.step("isolate", run)
    site.step("forensic", run)
    diagnosed = site.step("diagnose", run, window=Window(onset=started), benchmark=cases, search=search_of(given))
    assert diagnosed["baseline"] == 0.5
    site.step("plan", run)
    before = site.step("validate", run, benchmark=cases, search=given, check=True)
    assert before["verdict"] == "fail" and before["benchmark"]["accuracy"] == 0.5
    assert before["benchmark"]["failed"] == [
        {"line": 1, "why": "not among the first 1 results"}, {"line": 4, "why": "not among the first 1 results"},
        {"line": 5, "why": "another value"},
    ]  # fmt: skip
    assert before["hit_rate"] == {
        "value": 0.5, "source": "search", "threshold": 0.8, "reads": 6, "verdict": "fail",
        "why": "50.0% by search, 80% is needed",
    }  # fmt: skip
    site.step("apply", run)
    after = site.step("validate", run, benchmark=cases, search=given)
    assert (after["verdict"], after["benchmark"]["verdict"], after["hit_rate"]["source"]) == ("pass", "pass", "search")
    site.step("release", run)
    watched = watching(site, run, cases, given)
    assert watched["verdict"] == "pass" and watched["hit_rate"]["source"] == "search"
    assert (watched["hit_rate"]["value"], watched["hit_rate"]["reads"]) == (1.0, 6)


def watching(site, run, cases, given, seconds=0.1, interval=0.1, **more):
    with site.open() as store:
        return monitor_step.watch(
            store=store, store_params=site.store, namespace=NS, keyring=site.ring(), repository=None, run=run,
            seconds=seconds, interval=interval, benchmark=cases, search=given, name=NAME, **more,
        )  # fmt: skip


def test_what_is_lost_after_the_release_puts_the_fence_back(site):
    cases, given, run = benchmark(site), search("langgraph", top=1), attempt()
    site.backup()
    site.rebuild(NS, run=run)
    lose(site)
    watched = watching(site, run, cases, given)
    assert watched["breaches"] == ["hit rate 50.0% of 6 reads is below 80%"]
    assert watched["fenced"] and not site.view()["items"]


def judged(site, given, cases=CASES):
    with site.open() as store:
        return validate_step.judge(
            store=store, store_params=site.store, namespace=NS, keyring=site.ring(), run=attempt(),
            benchmark=benchmark(site, cases), search=given, check=True,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("factory", "options", "why"),
    [
        ("langgraph", {"arguments": {"dims": 4}}, r"search raised: .*different vector dimensions (8 and 4|4 and 8)"),
        ("langgraph", {"arguments": {"down": True}}, r"raised: ConnectionError: no route to the embedding service"),
        ("langgraph", {"arguments": {"dims": 0}}, "Unranked: the store has no vector index: it answers every"),
        ("langgraph", {"arguments": {"dimensions": 8}}, "cannot be made: TypeError: .*unexpected keyword"),
        ("nobody", {}, "cannot be made: AttributeError"),
        ("langgraph", {"interpreter": sys.executable}, "cannot be made: ModuleNotFoundError: No module named"),
        ("leaving", {}, "ended its process"),
    ],
)
def test_what_cannot_be_asked_is_no_answer(site, factory, options, why):
    found = judged(site, search(factory, **options))
    assert found["verdict"] == found["benchmark"]["verdict"] == found["hit_rate"]["verdict"] == "could-not-verify"
    assert found["hit_rate"]["source"] == "search" and found["benchmark"]["accuracy"] is None
    assert any(re.search(why, reason) for reason in found["reasons"]), found["reasons"]


def test_whoever_does_not_use_the_connection_is_not_believed(site):
    site.step("isolate", attempt())
    found = judged(site, search("langgraph_elsewhere", arguments={"url": site.url}))
    assert found["hit_rate"]["verdict"] == "could-not-verify"
    assert "does not see the records of agent-7" in found["hit_rate"]["why"]
    site.close_by_release(NS)


def test_nothing_is_written_by_whoever_is_asked(site):
    site.put(NS, {"over": {"text": "gone by now"}}, ttl=1)
    site.sql("UPDATE store SET expires_at = now() - '1 d'::interval WHERE key = 'over'")
    site.step("isolate", attempt())
    dump = site.dump_of()
    found = judged(site, search("langgraph_writing"))
    refused = "ReadOnlySqlTransaction: cannot execute"
    assert f"put {refused}" in found["hit_rate"]["why"] and f"delete {refused}" in found["hit_rate"]["why"]
    assert f"sweep_ttl {refused}" in found["hit_rate"]["why"]
    assert site.dump_of() == dump
    site.close_by_release(NS)


def test_no_secret_is_told(site, tmp_path):
    password = site.server.passwords[OWNER]
    assert len(password) > 5
    found = judged(site, search("telling"))
    assert "RuntimeError: postgresql://" in found["hit_rate"]["why"]
    assert password not in json.dumps(found) and not found["hit_rate"]["why"].endswith(password[: len(password) // 2])


def test_a_call_that_hangs_is_ended_and_its_secrets_are_in_no_list_of_processes(site, tmp_path):
    seconds, seen = 1, []
    while not seen:  # until the interpreter was fast enough to come as far as the call
        over = threading.Event()
        looking = threading.Thread(target=look, args=(tmp_path / "pid", over, seen))
        looking.start()
        found = judged(site, search("hanging", arguments={"folder": str(tmp_path)}, timeout=seconds))
        over.set()
        looking.join()
        seconds *= 3
    assert f"did not answer within {seconds // 3} s (memory_search.timeout)" in found["hit_rate"]["why"]
    pid, texts = seen
    assert b"search_factories" not in texts and site.server.passwords[OWNER].encode() not in texts
    assert not os.path.exists(f"/proc/{pid}")


def look(path, over, seen):
    """The process that wrote its number there: what everyone sees of its command, and its own of its environment."""
    while not (path.exists() and path.read_text()):
        if over.wait(0.01):
            return
    pid = path.read_text()
    seen += [pid, b"".join(pathlib.Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))]


def test_keys_alone_need_no_search_and_queries_do(site):
    keys = [case for case in CASES if "key" in case]
    site.put(NS, {"over": {"text": "gone by now"}}, ttl=1)
    site.sql("UPDATE store SET expires_at = now() - '1 d'::interval WHERE key = 'over'")
    keys += [{"key": "over", "expect": {"text": "gone by now"}}, {"key": "nowhere", "expect": 1}]
    found = judged(site, None, keys)
    assert (found["hit_rate"]["value"], found["hit_rate"]["source"]) == (0.5, "benchmark")
    assert [one["why"] for one in found["benchmark"]["failed"]] == ["expired", "absent"]
    with pytest.raises(CapabilityMissing, match="only the application's own search can answer") as refused:
        judged(site, None)
    assert "set memory_search" in str(refused.value)
    with pytest.raises(CapabilityMissing):
        looked_before(site, None)


def looked_before(site, given):
    with site.open() as store:
        return preflight.preflight(
            store=store, store_params=site.store, namespace=NS, run=attempt(), benchmark=benchmark(site),
            search=search_of(given), **site.places(),
        )  # fmt: skip


def test_what_cannot_be_asked_is_told_before_the_fence(site):
    site.backup()
    said = "The benchmark has no answer today, so no validation will pass: search_factories:nobody cannot be made"
    warnings = looked_before(site, search("nobody"))["warnings"]
    assert [line for line in warnings if line.startswith(said)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"factory": "memory"}, "not package.module:factory"),
        ({"factory": "a:b", "interpreter": "/nowhere/python"}, "no program that can be run"),
        ({"factory": "a:b", "python_path": [SUPPORT, "/nowhere/agent"]}, "The folder /nowhere/agent of memory_search"),
        ({"factory": "a:b", "top": 0}, r"memory_search\.top is 0"),
        ({"factory": "a:b", "timeout": 1000}, r"memory_search\.timeout is 1000"),
        ({"factory": "a:b", "arguments": ["x"]}, "no mapping of names"),
    ],
)  # fmt: skip
def test_what_is_said_wrong_is_named(given, said):
    with pytest.raises(InvalidInput, match=said):
        search_of(given)


# --- mem0 -------------------------------------------------------------------------------------------------------------
def test_mem0_is_asked_for_one_users_memories(tmp_path, postgresql_server):
    mine, other = "user_id=ann", "user_id=bob"
    site = Framework(tmp_path, postgresql_server, "mem0", ("mem0",))
    try:
        for one in (mine, other):
            site.app.ask("fill", namespace=one)
        ids = dict(site.sql("SELECT payload ->> 'data', id::text FROM mem0"))
        cases = [
            {"query": f"fact 3 of {mine}", "expect": ids[f"fact 3 of {mine}"]},
            {"query": f"fact 4 of {mine}", "expect": f"fact 4 of {mine}"},
            {"query": f"fact 4 of {other}", "expect": f"fact 4 of {other}"},  # is another's
            {"key": ids[f"fact 1 of {mine}"], "expect": f"fact 1 of {mine}"},
            {"key": ids[f"fact 1 of {other}"], "expect": f"fact 1 of {other}"},
        ]
        dump, folder = site.dump(tables=site.tables), set(os.listdir(tmp_path))
        site.step("isolate", attempt(), mine)
        for path in ([SUPPORT], [former_mem0(), SUPPORT]):  # by this release and by one before 2
            found = asked(site, search("mem0", top=3, python_path=path), cases, mine)
            assert [one["line"] for one in found["failed"]] == [3, 5] and found["asked"] == "search"
        site.close_by_release(mine)
        assert site.dump(tables=site.tables) == dump and set(os.listdir(tmp_path)) == folder
        assert site.sql("SELECT count(*) FROM pg_tables WHERE schemaname = %s", site.schema) == [(1,)]
    finally:
        site.wipe()


# --- SQLite -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def file(tmp_path, app):
    one = LanggraphSite(tmp_path, app)
    one.fill(count=10)
    return one


def phrase(number):
    return f"value {number} of {NS} " * 5


def embedded(number):
    """What LangGraph makes a vector of, where its index names no fields."""
    return json.dumps({"text": phrase(number), "n": number}, sort_keys=True)


IN_FILE = [
    {"query": embedded(3), "expect": "k00003"},
    {"query": embedded(4), "expect": f"VALUE 4 of {NS}"},
    {"query": embedded(5), "expect": "k00005"},
    {"key": "k00001", "expect": {"text": phrase(1), "n": 1}},
]


def test_of_a_file_in_quarantine_a_copy_is_asked_and_else_the_file_itself(file):
    file.sql("PRAGMA journal_mode = wal")
    dump = file.dump(("store", "store_vectors"))
    given = search("langgraph_sqlite", top=1)
    run = attempt()
    file.step("isolate", run)
    assert not file.app.everything([NS])
    assert asked(file, given, IN_FILE)["failed"] == []
    assert not [one for one in os.listdir(file.folder) if "memops-copy" in one]
    file.step("release", run, force=True)
    assert file.dump(("store", "store_vectors")) == dump
    file.app.delete([NS], "k00003")
    file.sql("DELETE FROM store_vectors WHERE key = 'k00005'")  # a vector is lost, the item is not
    found = asked(file, given, IN_FILE)
    assert [one["line"] for one in found["failed"]] == [1, 3]


def test_what_cannot_be_asked_of_a_file_is_no_answer_and_nothing_is_written(file):
    before = file.dump(("store", "store_vectors"))
    for arguments, why in (
        ({"dims": 0}, "Unranked: the store has no vector index"),  # by from_conn_string
        ({"write": True}, "OperationalError: attempt to write a readonly database"),
    ):
        with pytest.raises(NoAnswer, match=why):
            asked(file, search("langgraph_sqlite", arguments=arguments), IN_FILE)
    assert file.dump(("store", "store_vectors")) == before


def test_a_namespace_that_no_case_concerns_is_judged_as_without_a_benchmark(file):
    cases = [{**case, "namespace": "agent-8"} for case in IN_FILE]
    file.backup()
    run = attempt()
    with file.open() as store:
        warned = preflight.preflight(
            store=store, store_params=file.store, namespace=NS, run=run, benchmark=benchmark(file, cases),
            search=None, **file.places(),
        )["warnings"]  # fmt: skip
    assert [line for line in warned if line.startswith(f"No case of the benchmark concerns {NS}, which is judged as")]
    file.app.delete([NS], "k00003")
    for name in ("isolate", "forensic"):
        file.step(name, run)
    file.step("diagnose", run, window=Window(keys=frozenset({"k00003"})), benchmark=benchmark(file, cases))
    file.step("plan", run)
    file.step("apply", run)
    judged = file.step("validate", run, benchmark=benchmark(file, cases), search=None)
    assert (judged["verdict"], judged["hit_rate"]["source"]) == ("pass", "probes")
    assert judged["benchmark"]["verdict"] == "not-asked"
    file.step("release", run)
    watched = watching(file, run, benchmark(file, cases), None)
    probes, asked = judged["probes"]["checked"], watched["hit_rate"]["reads"]
    assert watched["hit_rate"]["source"] == "probes" and asked < 100
    short = f"no data: the watch was too short: {asked} answers of {probes} probes, 100 are needed to tell a hit rate"
    assert watched["reasons"][0].startswith(short) and watched["watch_seconds"] == 1
    slower = watching(file, run, benchmark(file, cases), None, again=True, interval=15)
    assert slower["watch_seconds"] == math.ceil(100 / probes) * 15  # so seldom does it ask then
    watched = watching(file, run, benchmark(file, cases), None, again=True, seconds=watched["watch_seconds"])
    assert (watched["verdict"], watched["watch_seconds"]) == ("pass", None)
