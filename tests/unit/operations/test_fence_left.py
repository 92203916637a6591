# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A fence of users of a Valkey server that outlives the store's data, or that its file of users does not hold: whoever
releases or restores is told, and so is whoever asks the doctor."""

from __future__ import annotations

import os
import shlex

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_fence import Fence
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import StoreUnavailable
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore_step
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.support.engines import Bench
from tests.support.valkey_server import APPLICATION, ValkeyServer
from tests.unit.operations.keyspace_help import KeyspaceSite
from tests.unit.operations.runbook import NAME, NS, Site, attempt
from tests.unit.operations.test_doctor import examined, failed, of

VALUES = {f"k{n:02}": {"v": n} for n in range(30)}


@pytest.fixture
def server():
    with ValkeyServer(durable=True) as own:  # its users lie in a file
        yield own


@pytest.fixture
def site(tmp_path, server):
    bench = Bench("valkey", tmp_path, server)
    one = Site(tmp_path / "site", bench=bench)
    with one.memory() as memory:
        memory.write_many(NS, VALUES)
        memory.read_many(NS, VALUES)
    yield one
    bench.close()


def brought_back(site, **more):
    return restore_step.bring_back(
        store_params=site.store, repository=Repository.open(site.repository), keyring=site.ring(), name=NAME,
        run=attempt(), create=True, **more,
    )  # fmt: skip


def test_a_store_that_lost_its_data_in_a_quarantine_is_not_restored_without_a_word(site, server):
    site.backup()
    site.step("isolate", attempt())
    server.kill()
    for name in os.listdir(server.directory):
        if name.startswith("appendonly"):
            os.rename(os.path.join(server.directory, name), os.path.join(server.directory, f"lost {name}"))
    server.again()
    (said,) = brought_back(site)["warnings"]
    assert f"user {APPLICATION} of the server" in said and f"may not use the keys of '{NS}', which serves" in said
    with pytest.raises(StoreUnavailable, match="does not allow user agent"):
        site.served()
    found = examined(site)
    failed(found, "fence", f"may not use the keys of '{NS}'")
    command = of(found, "fence")["next"].partition("there: ")[2].partition(", then ACL SAVE")[0]
    with server.client() as client:
        client.execute_command(*shlex.split(command))
        client.execute_command("ACL", "SAVE")
        given = client.acl_list()
    assert site.served() == VALUES and of(examined(site), "fence")["verdict"] == "pass"
    run = attempt()
    assert site.step("isolate", run)["proof"]["reads_refused"]
    assert site.step("release", run)["warnings"] == []
    with server.client() as client:
        assert client.acl_list() == given
    assert site.served() == VALUES


def test_other_applications_keys_that_are_restored_under_a_fence_of_which_nothing_is_known(tmp_path, server):
    site = KeyspaceSite(tmp_path / "keys", server)
    site.fill(count=3)
    site.backup()
    site.step("isolate", attempt())
    site.root.flushall()
    said = next(line for line in brought_back(site)["warnings"] if "may not use the keys" in line)
    assert f"'{NS}', which serves" in said
    command = said.partition("there: ")[2].partition(", then ACL SAVE")[0]
    site.root.execute_command(*shlex.split(command))
    assert site.app.get(site.key("number")) == b"12345"
    site.wipe()


def test_a_file_of_users_that_cannot_be_written_is_said(site, server):
    file = os.path.join(server.directory, "users.acl")
    with server.client() as client:
        before = client.acl_list()
    os.rename(file, file + ".former")
    os.mkdir(file)  # nothing can be written in its place
    run = attempt()
    for changed in (True, False):
        done = site.step("isolate", run)
        assert done["changed"] is changed and done["proof"]["writes_refused"]
        assert any("it cannot write the file that has its users" in line for line in done["proof"]["not_fenced"])
    (said,) = site.step("release", run)["warnings"]
    assert "cannot write the file that has its users" in said and "then there: ACL SAVE" in said
    os.rmdir(file)
    os.rename(file + ".former", file)
    run = attempt()
    assert not any("a restart" in line for line in site.step("isolate", run)["proof"]["not_fenced"])
    assert site.step("release", run)["warnings"] == []
    with server.client() as client:
        assert client.acl_list() == before


def test_a_fence_whose_operator_was_killed_before_the_file_was_written_gets_there_by_the_same_command(
    site, server, monkeypatch
):
    run = attempt()
    with monkeypatch.context() as killed:
        killed.setattr(Fence, "_save_users", lambda self, **_more: None)
        assert site.step("isolate", run)["changed"]
    assert not site.step("isolate", run)["changed"]
    server.kill()
    server.again()
    with site.open() as store:
        assert store.prove(NS)["writes_refused"]


def test_what_rights_of_commands_let_a_user_do_past_a_fence_is_named(site, server):
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", APPLICATION, "+flushall", "+monitor")
        client.execute_command("ACL", "SETUSER", "watcher", "on", "nopass", "~other:*", "+@all", "-acl", "-flushall")
    proof = site.step("isolate", attempt())["proof"]
    lines = [line for line in proof["not_fenced"] if "raw clients of user" in line]
    assert proof["writes_refused"]
    seen = "see what others send and get (MONITOR)"
    assert lines == [
        f"raw clients of user {APPLICATION}: it may empty the server (FLUSHALL), {seen}",
        f"raw clients of user watcher: it may exchange its databases (SWAPDB), {seen}",
        "raw clients of user memops, the operator's own",
    ]
