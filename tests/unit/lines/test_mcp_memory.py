# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runbook on the file of the MCP memory server: the server itself runs, is asked and writes all the while."""
from __future__ import annotations

import os
import shutil
import threading

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    apply,
    store_info,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_choice import choose
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_records import isolate_records
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.release_records import release_records
from tests.support.mcp_server import NEWEST, VERSIONS, McpError, McpServer
from tests.unit.lines.lines_help import MEMORY, entity, named, relation, spoil, text
from tests.unit.operations.runbook import attempt


# --- the fence ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("version", VERSIONS)
def test_a_running_server_is_refused_and_finds_everything_as_it_was(site, servers, version):
    server = servers[version]
    before = site.fill(server)
    os.chmod(site.path, 0o640)
    if os.geteuid() == 0:  # as of a server that runs as another user
        os.chown(site.path, 65534, 65534)
    content, status = site.content(), os.stat(site.path)
    run = attempt()
    done = site.step("isolate", run)
    assert done["proof"]["writes_refused"] and done["proof"]["reads_refused"]
    for refused in (
        server.read_graph, lambda: server.open_nodes(["e001"]), lambda: server.create_entities([entity("new")]),
        lambda: server.delete_entities(["e001"]), lambda: server.add_observations([]),
    ):  # fmt: skip
        with pytest.raises(McpError, match="EISDIR"):
            refused()
    assert site.state() == "quarantined" and len(site.rows()) == len(set(site.rows())) > 60
    assert not site.step("isolate", run)["changed"]
    assert site.step("release", run)["changed"] and not site.step("release", run)["changed"]
    assert site.content() == content and server.read_graph() == before
    after = os.stat(site.path)
    assert (after.st_mode, after.st_uid, after.st_gid) == (status.st_mode, status.st_uid, status.st_gid)
    assert site.beside() == ["memory.jsonl", "memory.jsonl.memops", "memory.jsonl.memops.db"]
    server.create_entities([entity("new")])
    assert named(server.read_graph())[-1] == "new"


@pytest.mark.parametrize("version", VERSIONS)
def test_no_acknowledged_write_is_lost_while_operators_work(site, servers, version):
    """Two servers take turns, as they lose each other's writes otherwise, while the fence comes and goes."""
    site.fill(servers[NEWEST])
    site.backup()
    turns, end, acknowledged, refused = threading.Lock(), threading.Event(), [], []

    def write(name, server):
        number = 0
        while not end.is_set():
            with turns:
                number += 1
                try:
                    server.create_entities([entity(f"{name} {number}", "kept")])
                    acknowledged.append(f"{name} {number}")
                except McpError as exc:
                    refused.append(str(exc))

    with McpServer(site.path, version) as second:
        clients = [threading.Thread(target=write, args=one) for one in (("a", servers[version]), ("b", second))]
        for client in clients:
            client.start()
        try:
            while len(acknowledged) < 20:
                pass
            site.rebuild("soft" if version == NEWEST else "hard")
            more = {"store_params": site.store, "namespace": MEMORY}
            for _again in range(2):
                with site.open() as store:
                    choice = choose(pattern="entity/e00*")
                    isolate_records(store=store, choice=choice, open_keyring=site.ring, run=site.after(), **more)
                    release_records(store=store, choice=None, run=site.after(), **more)
        finally:
            end.set()
            for client in clients:
                client.join()
    found = named(servers[version].read_graph())
    assert set(acknowledged) <= set(found) and len(found) == len(set(found)) + 1  # one name has two entities
    assert refused and all("EISDIR" in one for one in refused)
    assert {f"e{n:03}" for n in range(30)} <= set(found)


def test_a_write_in_place_that_began_before_the_fence_is_waited_for(site, server):
    """As versions that write in place do it, but slowly."""
    site.fill(server)
    content = site.content()
    ready = threading.Thread(target=site.step, args=("isolate", attempt()))
    with open(site.path, "ab") as stream:
        ready.start()
        while not os.path.isdir(site.path):
            pass
        stream.write(b"\n" + text({"type": "entity", **entity("acknowledged")}))
    ready.join()
    assert "entity/acknowledged" in site.rows()
    site.step("release", site.after())
    assert site.content() == content + b"\n" + text({"type": "entity", **entity("acknowledged")})


def test_a_program_that_never_ends_writing_stops_the_isolation_and_the_same_command_goes_on(site, server):
    before = site.fill(server)
    site.store["busy_timeout"] = 0.2
    with open(site.path, "r+b"):
        with pytest.raises(CannotProceed, match=r"open for writing and does not close it.*"):
            site.step("isolate", attempt())
        assert site.state() == "quarantined"
        with site.open() as store:
            assert "a step that was cut short keeps its application out" in " ".join(store.warnings())
    assert site.step("isolate", site.after())["changed"]
    site.step("release", site.after())
    assert server.read_graph() == before


def test_a_fence_that_somebody_takes_away_is_found_and_raised_again(site, server):
    site.fill(server)
    run = attempt()
    site.step("isolate", run)
    shutil.rmtree(site.path)
    server.create_entities([entity("past the fence", "acknowledged")])
    with site.open() as store, store.reader() as reader:
        assert "is gone: a file lies in its place" in reader.structure()[0]
    assert site.step("isolate", run)["changed"]
    with pytest.raises(McpError, match="EISDIR"):
        server.read_graph()
    assert list(site.aside()) == ["entity/past the fence"] and not site.step("isolate", run)["changed"]
    shutil.rmtree(site.path)
    with site.open() as store:
        assert "raised the fence" in store.repair_structure()[0] and not store.repair_structure()
    site.step("release", run)
    assert "past the fence" not in named(server.read_graph()) and len(named(server.read_graph())) > 40


# --- damage ---------------------------------------------------------------------------------------------------------
def put(line, content):
    return lambda lines: lines.__setitem__(line, content)


#: each of another line, so that several can be in a file at once
DAMAGE = {
    "no JSON": spoil(3),
    "the name is gone": put(5, b'{"type":"entity","na\x00\x00'),
    "the last one": spoil(-1),
    "wrong shape": put(6, b'{"type":"entity","name":"e006","entityType":"thing","observations":"none"}'),
    "the same twice, once whole": lambda lines: lines.insert(12, lines[11][:-9]),
}
MORE = {
    "nothing is left": put(2, b"\xff\xfe garbage"),
    "wrong type": put(4, b'{"type":"entitx","name":"e004","entityType":"thing","observations":["value 4 ","more"]}'),
    "no object": put(1, b"null"),
    "no UTF-8": put(7, b'{"type":"entity","name":"e007","entityType":"\xc3\x28","observations":[]}'),
    "two in one line": lambda lines: lines.__setitem__(slice(8, 10), [lines[8] + lines[9]]),
}


@pytest.mark.parametrize(("strategy", "damage"), [("soft", DAMAGE), ("hard", MORE)])
def test_bad_lines_are_found_set_aside_and_brought_back(site, server, strategy, damage):
    before, content = site.fill(server), site.content()
    site.backup()
    for change in damage.values():
        site.lines(change)
    with pytest.raises(McpError):  # one of them stops the whole server
        server.read_graph()
    with site.open() as store:
        assert " ".join(store_info.store_info(store)["warnings"]).count("'memory': line ") == 5
    if strategy == "soft":
        assert site.backup()["suspect"]  # it has the damage, and not the records either
    done = site.rebuild(strategy)
    assert server.read_graph() == before and site.content() == content
    assert done["plan"]["records"]["lost"] == 0 and done["validate"]["verdict"] == "pass"
    if strategy == "soft":
        assert set(site.aside()) == {
            "entity/e003", "entity/e006", "line/000000000006", "line/000000000013/entity/e011",
            "line/000000000082", "\0memops/order",
        }  # fmt: skip
    site.forget_incidents(len(site.rows_aside(MEMORY)), MEMORY)
    again = site.rebuild()
    assert not again["apply"]["changed"] and site.content() == content


@pytest.mark.parametrize(
    ("strategy", "damage"),
    [
        ("soft", lambda content: content[:2000]), ("hard", lambda content: content[:-3]),
        ("soft", lambda content: content[:700] + bytes(120) + content[1200:]),
        ("hard", lambda content: content[:300] + bytes(len(content))),
    ],
)  # fmt: skip
def test_a_file_that_lost_its_end_or_its_middle_is_whole_again(site, server, strategy, damage):
    before, content = site.fill(server), site.content()
    site.backup()
    site.set(damage(content))
    done = site.rebuild(strategy)
    assert server.read_graph() == before and site.content() == content
    assert done["plan"]["records"]["lost"] == 0


def test_what_no_snapshot_has_is_lost_and_listed_and_the_rest_stays(site, server):
    before = site.fill(server)
    site.backup()
    server.create_entities([entity("late", "never saved"), entity("later", "x")])
    site.set(site.content().replace(b'never saved"]}', b'never saved"'))
    done = site.rebuild(accept_loss=True)
    assert done["plan"]["lost_keys"] == ["entity/late"] and list(site.aside()) == ["entity/late"]
    found = named(server.read_graph())
    assert "later" in found and "late" not in found and len(found) == len(before["entities"]) + 1


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_what_a_run_away_agent_did_inside_the_window_is_undone(site, server, strategy):
    before = site.fill(server)
    site.backup()
    started = now_us()
    server.delete_entities(["e003", "a/b"])
    server.add_observations([{"entityName": "e001", "contents": ["garbage"]}])
    server.create_entities([entity("made")])
    server.create_relations([relation("made", "of", "nothing")])
    done = site.rebuild(strategy, window=Window(onset=started))
    assert server.read_graph() == before
    assert sorted(done["plan"]["suspect_keys"]) == ["entity/made", "relation/made/of/nothing"]
    assert done["validate"]["probes"]["checked"] >= 50


def test_without_a_window_what_changed_is_kept_and_what_is_absent_is_listed(site, server):
    site.fill(server)
    snapshot = site.backup()["snapshot"]
    server.delete_entities(["e003"])
    server.add_observations([{"entityName": "e001", "contents": ["news"]}])
    now = site.content()
    done = site.rebuild()
    assert site.content() == now and not done["apply"]["changed"]
    assert done["plan"]["newer_keys"] == ["entity/e001"]  # and not the record of the lines' order
    assert done["plan"]["warnings"][1].startswith("1 key other than in the last good snapshot, nobody knows since when")
    assert "'entity/e001'. In this rebuild memory_since, memory_keys or" in done["plan"]["warnings"][1]
    away = done["plan"]["absent_keys"]
    assert set(done["plan"]["listed"]) == {"left away", "kept"} and set(done["plan"]["listed"]["left away"]) == {*away}
    assert "entity/e003" in away and done["plan"]["absent_snapshot"] == snapshot
    said = done["plan"]["warnings"][0]
    assert said.startswith(f"{len(away)} keys of the last good snapshot, not there") and "'entity/e003'" in said
    assert f"memops.agent_memory.restore -e memory_namespace={MEMORY} -e memory_snapshot={snapshot} -e '{{" in said
    site.rebuild(absent="restore")
    assert "e003" in named(server.read_graph()) and len(site.content()) > len(now)


def test_undo_brings_back_what_a_hard_rebuild_replaced(site, server):
    site.fill(server)
    site.backup()
    started = now_us()
    server.delete_entities(["e003"])
    damaged = site.content()
    site.rebuild("hard", window=Window(onset=started), until="apply")
    with site.open() as store:
        assert apply.undo(store=store, namespace=MEMORY, run=site.after())["changed"]
    site.step("release", site.after(), force=True)
    assert site.content() == damaged
