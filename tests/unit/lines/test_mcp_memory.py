# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runbook on the file of the MCP memory server: the server itself runs, is asked and writes all the while."""
from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    CapabilityMissing,
    InvalidInput,
    NamespaceUnknown,
    StoreMissing,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    apply,
    drill,
    export,
    inform,
    monitor,
    preflight,
    restore,
    verify,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import claim, now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_choice import choose
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_records import isolate_records
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.release_records import release_records
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.mcp_server import IN_PLACE, NEWEST, VERSIONS, McpError, McpServer
from tests.unit.lines.lines_help import MEMORY, LinesSite, entity, named, relation, text
from tests.unit.operations.runbook import NAME, attempt


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that the servers of this file have their memory in."""
    return tmp_path_factory.mktemp("mcp") / "memory"


@pytest.fixture(scope="module")
def servers(place):
    os.makedirs(place)
    with McpServer(str(place / "memory.jsonl")) as newest, McpServer(str(place / "memory.jsonl"), IN_PLACE) as older:
        yield {NEWEST: newest, IN_PLACE: older}


@pytest.fixture
def server(servers):
    return servers[NEWEST]


@pytest.fixture
def site(tmp_path, place, servers):
    for one in place.iterdir():
        shutil.rmtree(one) if one.is_dir() else one.unlink()
    return LinesSite(tmp_path, place / "memory.jsonl")


# --- the fence ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("version", VERSIONS)
def test_a_running_server_is_refused_and_finds_everything_as_it_was(site, servers, version):
    server = servers[version]
    before = site.fill(server)
    os.chmod(site.path, 0o640)
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
def spoil(line):
    return lambda lines: lines.__setitem__(line, lines[line][:40] + lines[line][43:-2])


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
        assert " ".join(inform.inform(store)["warnings"]).count("'memory': line ") == 5
    done = site.rebuild(strategy)
    assert server.read_graph() == before and site.content() == content
    assert done["plan"]["records"]["lost"] == 0 and done["validate"]["verdict"] == "pass"
    if strategy == "soft":
        assert set(site.aside()) == {
            "entity/e003", "entity/e006", "line/000000000006", "line/000000000013/entity/e011",
            "line/000000000082", "\0memops/order",
        }  # fmt: skip
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
    site.backup()
    server.delete_entities(["e003"])
    server.add_observations([{"entityName": "e001", "contents": ["news"]}])
    now = site.content()
    done = site.rebuild()
    assert site.content() == now and not done["apply"]["changed"]
    assert "entity/e003" in done["plan"]["absent_keys"]
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


# --- snapshots and restores -----------------------------------------------------------------------------------------
def _restore(site, namespace=MEMORY, **options):
    return restore.restore(
        store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace=namespace,
        **options,
    )  # fmt: skip


def test_a_lost_file_comes_back_whole(site, server):
    before, content = site.fill(server), site.content()
    site.backup()
    os.unlink(site.path)
    assert server.read_graph() == {"entities": [], "relations": []}  # it believes in an empty memory
    with site.open() as store:
        assert "there is no file" in store.warnings()[0]
    run = attempt()
    site.step("isolate", run)  # from here on it makes no new one
    with site.open() as store:
        assert _restore(site, claim=claim(store, MEMORY, run))["restored"] == len(site.rows())
    site.step("release", run)
    assert server.read_graph() == before and site.content() == content
    for name in (site.path, site.path + ".memops.db"):
        os.unlink(name)
    with pytest.raises(StoreMissing, match="There is no memory at"):
        _restore(site)
    assert _restore(site, create=True)["restored"] == len(site.rows())
    assert server.read_graph() == before and site.content() == content
    assert not _restore(site)["changed"]
    server.create_entities([entity("new")])


def test_a_whole_restore_needs_the_fence_and_is_exact(site, server):
    before = site.fill(server)
    site.backup()
    server.delete_entities([f"e{n:03}" for n in range(0, 30, 2)])
    server.create_entities([entity("new")])
    with pytest.raises(CapabilityMissing, match="write-lock"):
        _restore(site)
    run = attempt()
    site.step("isolate", run)
    with site.open() as store:
        _restore(site, claim=claim(store, MEMORY, run))
    site.step("release", run)
    assert server.read_graph() == before


def test_some_records_come_back_in_place_while_the_server_goes_on(site, server):
    site.fill(server)
    site.backup()
    server.delete_entities(["e002"])
    server.add_observations([{"entityName": "e001", "contents": ["news"]}])
    done = _restore(site, keys=["entity/e001", "entity/e002", "entity/nobody"])
    assert (done["restored"], done["newer_keys"], done["missing_keys"]) == (1, ["entity/e001"], ["entity/nobody"])
    assert _restore(site, keys=["entity/e001"], overwrite=True)["restored"] == 1
    assert "news" not in json.dumps(server.open_nodes(["e001"])) and "e002" in named(server.read_graph())
    assert site.beside() == ["memory.jsonl", "memory.jsonl.memops.db"]


def test_a_snapshot_verifies_rehearses_and_is_exported(site, server, tmp_path):
    site.fill(server)
    snapshot = site.backup()["snapshot"]
    repository = Repository.open(site.repository)
    assert repository.snapshot(NAME, snapshot, site.ring()).manifest["consistency"] == "point-in-time"
    found = verify.verify(repository=repository, keyring=site.ring(), name=NAME, snapshot_id=snapshot, depth="opened")
    assert found["verdict"] == "pass"
    found = drill.drill(repository=repository, keyring_params=site.keyring, name=NAME)
    assert found["verdict"] == "pass" and found["namespaces"][MEMORY]["records"] == len(site.rows())
    decoder = [sys.executable, str(pathlib.Path(__file__).parents[2] / "decoder" / "decode_snapshot.py")]
    said = subprocess.run(
        [*decoder, os.path.join(site.folder, "repository"), NAME, site.keyring["master_key_file"]],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert json.loads(said.stdout)["agrees"]
    export.export(repository=repository, keyring=site.ring(), name=NAME, directory=str(tmp_path / "out"))
    with open(tmp_path / "out" / "records.jsonl", encoding="ascii") as lines:
        rows = {row["key"]: row for row in map(json.loads, lines)}
    assert {row["status"] for row in rows.values()} == {"intact"}
    assert rows["entity/twice"]["lines"] == [
        {"type": "entity", **entity("twice", "one")}, {"type": "entity", **entity("twice", "two", kind="other")}
    ]  # fmt: skip


# --- looks ----------------------------------------------------------------------------------------------------------
def test_a_rehearsal_and_a_look_write_nothing(site, server):
    site.fill(server)
    fresh = site.everything()
    with site.open() as store:
        inform.inform(store)
        preflight.preflight(store=store, store_params=site.store, namespace=MEMORY, run=attempt(), **site.places())
    site.step("isolate", attempt(), check=True)
    assert site.everything() == fresh
    site.backup()
    site.lines(DAMAGE["no JSON"])
    before = site.everything()
    with site.open() as store:
        found = preflight.preflight(
            store=store, store_params=site.store, namespace=MEMORY, run=attempt(), **site.places()
        )
        assert found["can_resolve"]
    site.step("isolate", attempt(), check=True)
    site.step("diagnose", attempt(), check=True)
    assert site.step("plan", attempt(), check=True)["records"]["repair"] == 1
    assert site.everything() == before


def test_what_should_be_known_is_told(site, server):
    site.fill(server)
    os.link(site.path, site.path + ".other")
    pathlib.Path(site.path + "." + "0f" * 16 + ".tmp").write_bytes(b"left")
    site.lines(lambda lines: lines.insert(3, text({"type": "entity", **entity("\ufffd")})))
    with site.open() as store:
        said = inform.inform(store)
    assert said["capabilities"] == ["fence-raw-reads", "fence-reads", "fence-writes", "generations"]
    told = "\n".join(said["warnings"])
    for one in (
        "several names (hard links)", "1 drafts of a server that was killed", "1 records have more than one line",
        "1 lines refer to an entity that is not there", "1 lines hold U+FFFD",
    ):  # fmt: skip
        assert one in told, told


def test_what_can_be_no_memory_is_named(site, server, tmp_path):
    site.fill(server)
    with site.open() as store, store.reader() as reader, pytest.raises(NamespaceUnknown, match="no namespace 'other'"):
        reader.namespace("other")
    os.symlink(site.path, tmp_path / "link.jsonl")
    os.mkdir(tmp_path / "folder.jsonl")
    for path, kind, said in (
        ("link.jsonl", InvalidInput, "is a symbolic link"), ("folder.jsonl", InvalidInput, "is a directory"),
        ("none.jsonl", StoreMissing, "There is no memory at"), ("none/{namespace}.jsonl", StoreMissing, "no directory"),
        ("{namespace}/{namespace}.jsonl", InvalidInput, "may have one"), ("{namespace}", InvalidInput, "may have one"),
    ):  # fmt: skip
        with pytest.raises(kind, match=said):
            open_store({**site.store, "path": str(tmp_path / path)})
    with pytest.raises(InvalidInput, match="cannot run the layout"):
        open_store({**site.store, "engine": "sqlite"})


@pytest.mark.parametrize("gone", [False, True])
def test_the_watch_asks_the_probes_and_puts_the_fence_back_when_memories_vanish(site, server, gone):
    site.fill(server, 120)
    site.backup()
    run = attempt()
    for name in ("isolate", "forensic", "diagnose", "plan", "apply", "validate", "release"):
        site.step(name, run)
    server.create_entities([entity("new")])  # the order of the lines is another one: no memory is gone
    if gone:
        server.delete_entities([f"e{n:03}" for n in range(120)])
    with site.open() as store:
        found = monitor.monitor(
            store_params=site.store, keyring=site.ring(), claim=claim(store, MEMORY, site.after()), namespace=MEMORY,
            deadline=now_us() + 200_000, interval=0.05,
        )  # fmt: skip
    if gone:
        assert found["verdict"] == "fail" and found["fenced"] and site.state() == "quarantined"
    else:
        assert found["verdict"] == "pass" and found["hit_rate"] == {**found["hit_rate"], "value": 1.0}


# --- several files --------------------------------------------------------------------------------------------------
def test_each_file_of_a_folder_is_a_namespace_and_siblings_never_notice(site, server, tmp_path):
    site.fill(server)
    folder = tmp_path / "users"
    os.makedirs(folder)
    for name in ("ann", "bob", "eve\nodd 50%"):
        shutil.copy(site.path, folder / f"{name}.jsonl")
    (folder / "notes.txt").write_text("none of ours")
    many = LinesSite(tmp_path / "many", folder / "{namespace}.jsonl")
    sibling = (folder / "bob.jsonl").read_bytes()
    many.backup()
    with many.open() as store, store.reader() as reader:
        assert [one.name for one in reader.namespaces()] == ["ann", "bob", "eve\nodd 50%"]
    (folder / "ann.jsonl").write_bytes(sibling[:900])
    many.rebuild(namespace="ann")
    assert (folder / "ann.jsonl").read_bytes() == sibling == (folder / "bob.jsonl").read_bytes()
    os.unlink(folder / "bob.jsonl")
    run = attempt()
    many.step("isolate", run, "bob")
    with many.open() as store:
        _restore(many, "bob", claim=claim(store, "bob", run))
    many.step("release", run, "bob")
    assert (folder / "bob.jsonl").read_bytes() == sibling
    assert sorted(os.listdir(folder)) == [
        ".jsonl.memops", ".jsonl.memops.db", "ann.jsonl", "bob.jsonl", "eve\nodd 50%.jsonl", "notes.txt"
    ]  # fmt: skip


# --- full disk ------------------------------------------------------------------------------------------------------
def test_a_full_disk_costs_nothing_and_the_same_command_goes_on(site, server, tmp_path):
    """The limit is one on the size of files that this process writes, which the kernel enforces as a full disk."""
    before, content = site.fill(server, 1000), site.content()
    site.backup()
    site.lines(DAMAGE["no JSON"])
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (70000, 70000)); sys.path.insert(0, sys.argv[4]); "
        "from tests.unit.lines.lines_help import *; "
        "site = LinesSite(*sys.argv[1:3]); "
        "site.step(sys.argv[3], site.after())"
    )
    root = str(pathlib.Path(__file__).parents[3])

    def limited(step):
        return subprocess.run(
            [sys.executable, "-c", program, site.folder, site.path, step, root], capture_output=True, text=True,
            check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip

    said = limited("isolate")
    assert said.returncode and "StoreUnavailable" in said.stderr, said.stderr
    assert site.state() == "quarantined"
    for name in ("isolate", "forensic", "diagnose", "plan", "apply", "validate"):
        site.step(name, site.after())
    said = limited("release")
    assert said.returncode and "StoreUnavailable" in said.stderr, said.stderr
    assert site.state() == "quarantined" and not os.path.exists(site.path + ".memops-new")
    with pytest.raises(McpError, match="EISDIR"):
        server.read_graph()
    site.step("release", site.after())
    assert server.read_graph() == before and site.content() == content


def test_a_folder_that_takes_no_files_is_named(site, server, tmp_path, monkeypatch):
    site.fill(server)
    monkeypatch.setattr(os, "open", _refusing(os.open, ".memops.db"))
    with pytest.raises(StoreUnavailable, match="cannot be read or written"):
        site.step("isolate", attempt())
    assert named(server.read_graph())


def _refusing(real, part):
    def refuse(path, *arguments, **options):
        if part in str(path):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    return refuse
