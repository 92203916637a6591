# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The server of the store is killed (SIGKILL) at some call of every step of a rebuild, or the way to it is cut at some
message: one sentence, still quarantined when it is back, and the same call finishes with nothing lost.
"""
from __future__ import annotations

import os
import random
import threading

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import valkey_transactions
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.postgresql_session import Session
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey import ValkeyStore
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_connect import Wire
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import MemoryOpsError
from tests.support.engines import Bench
from tests.support.link import Linked
from tests.support.postgresql_server import PostgresqlServer
from tests.support.valkey_server import ValkeyServer
from tests.unit.operations.runbook import STEPS, attempt
from tests.unit.operations.test_rebuild_kills import check, damaged, options

POINTS = int(os.environ.get("MEMOPS_SERVER_KILL_POINTS", "1"))  # kills and cuts per step, one after the other
CALLS = {  # what sends something to the server
    "postgresql": [(Session, name) for name in ("say", "run", "rows", "copy", "begin")],
    "valkey": [(Wire, "many")],
}


@pytest.fixture(scope="module")
def servers():
    with PostgresqlServer() as postgresql, ValkeyServer(durable=True) as valkey:
        linked = {"postgresql": Linked(postgresql), "valkey": Linked(valkey)}
        yield linked
        for one in linked.values():
            one.link.close()


class Calls:
    """Counts the calls of a server and does something at one of them: before it goes out, while it is under way, or
    after its answer came."""

    def __init__(self, patch, engine, at=None, act=None, when="before"):
        self.seen, self.at, self.act, self.when, self._pid = 0, at, act, when, os.getpid()
        for owner, name in CALLS[engine]:
            patch.setattr(owner, name, self._around(getattr(owner, name)))

    def _around(self, function):
        def wrapped(*args, **kwargs):
            self.seen += 1
            if self.seen != self.at or os.getpid() != self._pid:  # a process that a step forked only suffers
                return function(*args, **kwargs)
            if self.when == "before":
                self.act()
                return function(*args, **kwargs)
            if self.when == "after":
                try:
                    return function(*args, **kwargs)
                finally:
                    self.act()
            other = threading.Thread(target=self.act)
            other.start()
            try:
                return function(*args, **kwargs)
            finally:
                other.join()

        return wrapped


def fails(work):
    """What a person would read; None when the work ended well."""
    try:
        work()
    except MemoryOpsError as exc:
        return exc.message, exc.next_step  # not the exception: its frames hold connections open
    return None


def one_sentence(said, server):
    message, step = said
    assert step and "\n" not in message and message.endswith("."), said
    assert "This probably means" not in message, said
    assert not [word for word in server.passwords.values() if word in message + step]


@pytest.mark.parametrize("strategy", ["soft", "hard"])
@pytest.mark.parametrize("engine", sorted(CALLS))
def test_a_server_that_is_killed_or_cut_off_in_a_step(servers, tmp_path, monkeypatch, engine, strategy):
    monkeypatch.setattr(valkey_transactions, "SETTLE_SECONDS", 0.2)  # the server is not back so soon
    monkeypatch.setattr(valkey_transactions, "HOLD_SECONDS", 0.5)  # what the killed connection held is waited for
    server = servers[engine]
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    rehearsal = Bench(engine, tmp_path, server)
    site, calls, requests, run = damaged(tmp_path / "rehearsal", rehearsal), {}, {}, attempt()
    for name in STEPS:
        with pytest.MonkeyPatch.context() as patch:
            counted = Calls(patch, engine)
            server.link.break_at(0)
            site.step(name, run, **options(name, strategy))
            calls[name], requests[name] = counted.seen, server.link.requests()
    bench = Bench(engine, tmp_path, server)
    site, run = damaged(tmp_path / "site", bench), attempt()
    elsewhere = site.untouched()
    former = site.rows()
    for name in STEPS:

        def failing(name=name):
            return fails(lambda: site.step(name, run, **options(name, strategy)))

        if strategy == "soft" or name == "apply":  # the others do the same for both
            for turn, fault in enumerate(dice.sample(["cut", "kill"] * POINTS, 2 * POINTS)):
                if fault == "cut":
                    number, answered = dice.randint(1, requests[name]), dice.random() < 0.5
                    server.link.break_at(number, answered=answered)
                    said = failing()
                    when = "after" if answered else "before"
                    place = f"{name}: message {number} of {requests[name]}, cut {when}: {said}"
                    hit = server.link.requests() >= number
                    server.link.break_at(0)
                else:
                    number, when = dice.randint(1, calls[name]), dice.choice(("before", "meanwhile", "after"))
                    with pytest.MonkeyPatch.context() as patch:
                        counted = Calls(patch, engine, number, server.kill, when)
                        said = failing()
                    place = f"{name}: call {number} of {calls[name]}, killed {when}: {said}"
                    hit = counted.seen >= number
                    if hit:
                        server.again()
                print(place)
                assert hit or turn, place
                if said is not None:
                    one_sentence(said, server)
                if name not in ("isolate", "release") or (said is None and name == "isolate"):
                    assert site.state() == "quarantined", place
        site.step(name, run, **options(name, strategy))
    check(site, elsewhere)
    if strategy == "hard":
        assert site.rows(generation=site.facts()["switched_from"]) == former
    bench.close()
    rehearsal.close()


@pytest.mark.parametrize("at", [1, 2])
def test_a_release_that_is_killed_before_the_servers_users_are_saved_locks_nobody_out(
    servers, tmp_path, monkeypatch, at
):
    monkeypatch.setattr(valkey_transactions, "HOLD_SECONDS", 0.5)
    server, bench = servers["valkey"], Bench("valkey", tmp_path, servers["valkey"])
    site, run = damaged(tmp_path / "site", bench), attempt()
    site.step("isolate", run)
    saved, turns = ValkeyStore._save_users, iter(range(1, 10))

    def save(store):
        if next(turns) == at:
            server.kill()
        saved(store)

    with monkeypatch.context() as patch:
        patch.setattr(ValkeyStore, "_save_users", save)
        one_sentence(fails(lambda: site.step("release", run, force=True)), server)
    server.again()
    site.step("release", run, force=True)
    assert site.state() == "serving"
    client = bench.raw("store").client()
    assert client.sees()
    client.close()
    bench.close()
