# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A process that works on the file of an MCP memory server is killed (SIGKILL) before everything that it does to files
and each commit. Whatever had happened, the server never shows an empty or half memory, and the same command
finishes it. Whatever holes a file has, it is as before."""
from __future__ import annotations

import os
import shutil
import signal
import traceback

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import jsonl_file, sqlite_connect
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_choice import choose
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_records import isolate_records
from tests.support.mcp_server import McpError, McpServer
from tests.unit.lines.lines_help import MEMORY, ODD, LinesSite, entity, named, relation, text
from tests.unit.operations.runbook import attempt


def take_out(site):
    with site.open() as store:
        return isolate_records(
            store=store, choice=choose(keys=["entity/e1"]), open_keyring=site.ring, run=site.after(),
            store_params=site.store, namespace=MEMORY,
        )  # fmt: skip


STEPS = {
    "isolate": (lambda site: site.step("isolate", site.after()), lambda site: None),
    "change": (take_out, lambda site: None),
    "release": (lambda site: site.step("release", site.after()), lambda site: site.step("isolate", site.after())),
}


class Dying:
    """The control file's connection, which tells of commits."""

    def __init__(self, con, instant):
        self.__dict__.update(con=con, instant=instant)

    def execute(self, text, *values):
        return self.instant(self.con.execute, text == "COMMIT")(text, *values)

    def __getattr__(self, name):
        return getattr(self.con, name)

    def __setattr__(self, name, value):
        setattr(self.con, name, value)


def killed_at(step, work):
    """The status of a process that was killed at the ``step``-th instant of ``work``, if it has so many."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    left = [step]

    def tick():
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    def instant(real, counts=True):
        def call(*arguments, **options):
            if counts:
                tick()
            return real(*arguments, **options)

        return call

    try:
        for name in ("renameat2", "_remove"):
            setattr(jsonl_file, name, instant(getattr(jsonl_file, name)))
        jsonl_file.MemoryFile.write = instant(jsonl_file.MemoryFile.write)
        jsonl_file.os.mkdir = instant(os.mkdir)
        real = sqlite_connect.Opened.__init__

        def init(self, *arguments, **options):
            real(self, *arguments, **options)
            self._con = Dying(self._con, instant)

        sqlite_connect.Opened.__init__ = init
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("kills") / "memory"


@pytest.fixture(scope="module")
def server(place):
    os.makedirs(place)
    with McpServer(str(place / "memory.jsonl")) as one:
        yield one


@pytest.mark.parametrize("name", STEPS)
def test_whenever_it_is_killed_the_same_command_finishes_it(tmp_path, place, server, name, monkeypatch):
    monkeypatch.setattr(jsonl_file, "CALL_SECONDS", 0)  # no call of the server is under way here
    work, prepare = STEPS[name]
    shutil.rmtree(place)
    os.makedirs(place)
    site = LinesSite(tmp_path, place / "memory.jsonl")
    server.create_entities([entity(f"e{n}", f"value {n}") for n in range(5)])
    site.backup()
    before = server.read_graph()
    prepare(site)
    shutil.copytree(place, tmp_path / "fresh", symlinks=True)
    step = 0
    while True:
        step += 1
        shutil.rmtree(place)
        shutil.copytree(tmp_path / "fresh", place, symlinks=True)
        status = killed_at(step, lambda: work(site))
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0 and step > 8
            return
        try:
            seen = named(server.read_graph())
        except McpError as exc:
            seen = str(exc)
        done = [f"e{n}" for n in (0, 2, 3, 4)] if name == "change" else None
        assert seen in (named(before), done, "EISDIR: illegal operation on a directory, read"), step
        assert site.rows()  # whatever it is, it can be looked at
        if name == "change" and site.aside():  # it was done, and says so
            assert take_out(site)["already"] == 1
            site.step("release", site.after())
        else:
            work(site)
        if name == "isolate":
            assert site.state() == "quarantined" and len(site.rows()) == 6, step
            continue
        assert [len(rows) for rows in site.aside().values()] == ([1] if name == "change" else []), step
        kept = [one for one in before["entities"] if name != "change" or one["name"] != "e1"]
        assert server.read_graph()["entities"] == kept, step
        site.step("isolate", site.after())  # which clears away what may be left
        assert site.beside() == ["memory.jsonl", "memory.jsonl.memops", "memory.jsonl.memops.db"], step


RUNS = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 400), st.sampled_from([b"\0", b"\xff"])), max_size=4)


@settings(max_examples=int(os.environ.get("MEMOPS_EXAMPLES", "4")), phases=(Phase.generate,), deadline=None,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(runs=RUNS, cut=st.none() | st.floats(0.1, 1), strategy=st.sampled_from(["soft", "hard"]))
def test_whatever_holes_a_file_has_it_is_as_before(tmp_path_factory, monkeypatch, runs, cut, strategy):
    monkeypatch.setattr(jsonl_file, "CALL_SECONDS", 0)
    folder = tmp_path_factory.mktemp("holes")
    os.makedirs(folder / "memory")
    site = LinesSite(folder, folder / "memory" / "memory.jsonl")
    lines = [{"type": "entity", **entity(name, f"é value of {name}")} for name in (*ODD, "e1", "e2", "e3")]
    lines += [{"type": "relation", **relation(one, "is", "e1")} for one in ODD]
    content = b"\n".join(map(text, lines))
    site.set(content)
    site.backup()
    damaged = bytearray(content)
    for where, length, byte in runs:
        at = int(where * (len(content) - 1))
        damaged[at : at + length] = byte * len(damaged[at : at + length])
    if cut is not None:
        end = int(cut * (len(content) - 1))
        while damaged[end - 1 : end + 1].find(b"\n") >= 0:
            end -= 1  # a cut between two lines leaves nothing to see
        del damaged[end:]
    site.set(bytes(damaged))
    run = attempt()
    for name in ("isolate", "forensic", "diagnose", "plan", "apply"):
        site.step(name, run, **({"strategy": strategy, "accept_loss": True} if name == "plan" else {}))
    site.step("release", run, force=True)
    assert site.content() == content
