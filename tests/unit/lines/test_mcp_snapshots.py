# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Snapshots, restores, looks and full disks of the MCP memory server's file, with the server running."""
from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CapabilityMissing,
    InvalidInput,
    NamespaceUnknown,
    StoreMissing,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    drill,
    export,
    monitor,
    preflight,
    restore,
    store_info,
    verify,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import claim, now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.mcp_server import McpError
from tests.unit.lines.lines_help import MEMORY, LinesSite, entity, named, spoil, text
from tests.unit.operations.decoded import decoded
from tests.unit.operations.runbook import NAME, attempt


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
    done = _restore(site, keys=["entity/e001", "entity/e002"])
    assert (done["restored"], done["newer_keys"]) == (1, ["entity/e001"])
    assert _restore(site, keys=["entity/e001"], overwrite=True)["restored"] == 1
    assert "news" not in json.dumps(server.open_nodes(["e001"])) and "e002" in named(server.read_graph())
    assert site.beside() == ["memory.jsonl", "memory.jsonl.memops", "memory.jsonl.memops.db"]


def test_a_snapshot_verifies_rehearses_and_is_exported(site, server, tmp_path):
    site.fill(server)
    snapshot = site.backup()["snapshot"]
    repository = Repository.open(site.repository)
    assert repository.snapshot(NAME, snapshot, site.ring()).manifest["consistency"] == "point-in-time"
    found = verify.verify(repository=repository, keyring=site.ring(), name=NAME, snapshot_id=snapshot, depth="opened")
    assert found["verdict"] == "pass"
    found = drill.drill(repository=repository, keyring_params=site.keyring, name=NAME)
    assert found["verdict"] == "pass" and found["namespaces"][MEMORY]["records"] == len(site.rows())
    said = decoded(site)
    assert said["agrees"]
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
        store_info.store_info(store)
        preflight.preflight(store=store, store_params=site.store, namespace=MEMORY, run=attempt(), **site.places())
    site.step("isolate", attempt(), check=True)
    assert site.everything() == fresh
    site.backup()
    site.lines(spoil(3))
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
        said = store_info.store_info(store)
    assert said["capabilities"] == ["fence-raw-reads", "fence-reads", "fence-writes", "generations"]
    told = "\n".join(said["warnings"])
    for one in (
        "several names (hard links)", "1 draft of a server that was killed", "1 record has more than one line",
        "1 line refers to an entity that is not there", "1 line holds U+FFFD",
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
    site.lines(spoil(3))
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
