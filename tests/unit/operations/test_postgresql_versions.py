# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole runbook on the supported versions of PostgreSQL that the other tests do not run on (those run on 18), each
server made by its own initdb as that version makes it: the native layout, and LangGraph's store with pgvector."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.postgresql_log_parts import log_part
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import rotate, scrub
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.support.engines import Bench
from tests.support.postgresql_server import PostgresqlServer
from tests.support.postgresql_versions import VERSIONS
from tests.unit.operations.runbook import NAME, NS, OTHER, Site, attempt
from tests.unit.tables.tables_help import LangGraph

VALUES = {**{f"key-{n:03}": {"n": n} for n in range(200)}, "\0nul": 1, "_" * 3000: 2}
UNCHECKED = "data_checksums is off: damage on the server's disk may be read as data, or end the server's processes"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_whole_runbook(version, tmp_path):
    """In one test, so that each server starts once whatever process runs it."""
    with PostgresqlServer(version=version) as server:
        with server.connect() as con:
            assert con.execute("SHOW server_version").fetchone()[0].startswith(f"{version}.")
        native(Site(tmp_path / "native", bench=Bench("postgresql", tmp_path, server)))
        site = LangGraph(tmp_path / "langgraph", server)
        try:
            langgraph(site)
        finally:
            site.wipe()


def checked(site):
    """What a scrub of the store and its snapshots says, and the engine's own structure."""
    with site.open() as store, store.reader() as reader:
        assert reader.structure() == []
    with site.open() as store:
        told = scrub.scrub(
            store=store, store_params=site.store, keyring=site.ring(), name=NAME,
            repository=Repository.open(site.repository),
        )  # fmt: skip
    return told["verdict"]


def native(site):
    with site.memory() as memory:
        memory.write_many(NS, VALUES)
        memory.write_many(OTHER, {f"other-{n}": n for n in range(5)})
    with site.open() as store:
        assert UNCHECKED in store.warnings()
        with store.reader() as reader:  # the server puts the log of a snapshot together
            assert log_part(reader._session, store.sql.log, 0, 100).rows == 100
    site.backup()
    elsewhere, client = site.untouched(), site.raw.client()
    site.raw.flip(NS, "key-001")
    site.raw.swap(NS, "key-002", "_" * 3000)
    site.raw.remove(NS, ["key-003", "\0nul"])
    site.raw.lose_index(NS)
    assert client.sees()
    run, done = attempt(), {}
    done["isolate"] = site.step("isolate", run)
    assert done["isolate"]["proof"]["writes_refused"] and done["isolate"]["proof"]["reads_refused"]
    for name, write in client.writes("key-004").items():
        with pytest.raises(client.errors) as caught:
            write()
        assert client.refusal(caught.value), name
    assert client.read() == len(site.rows(OTHER))
    client.close()
    for name in ("forensic", "diagnose", "plan", "apply", "validate", "release"):
        options = {"plan": {"strategy": "hard"}, "release": {"force": True}}.get(name, {})
        done[name] = site.step(name, run, **options)
    assert not done["plan"]["lost_keys"] and done["apply"]["changed"]
    assert site.served() == VALUES and site.untouched() == elsewhere and site.state() == "serving"
    site.close_incident()
    assert rotate.rotate(store_params=site.store, keyring=site.ring(), force=True)["complete"]
    assert site.served() == VALUES
    site.backup()
    assert checked(site) == "pass"


def langgraph(site):
    site.fill()
    site.fill(OTHER, 5)
    before, dump, sibling, catalogue = site.view(), site.dump_of(), site.dump_of(OTHER), site.catalogue()
    site.backup()
    started = now_us()
    site.damage()
    run = attempt()
    proof = site.step("isolate", run)["proof"]
    assert proof["writes_refused"] and proof["reads_refused"] and not proof["reads_accepted"]
    view = site.view()  # on the application's own connection, which was open before
    assert not view["items"] and not any(view["ranked"])
    with pytest.raises(RuntimeError, match=r"memops fence|row-level security"):
        site.put(NS, {"fact 00001": {"text": "x"}})
    options = {"diagnose": {"window": Window(onset=started)}, "plan": {"strategy": "hard"}}
    for name in ("forensic", "diagnose", "plan", "apply", "validate", "release"):
        site.step(name, run, **options.get(name, {}))
    assert site.view() == before and site.catalogue() == catalogue
    assert (site.dump_of(), site.dump_of(OTHER)) == (dump, sibling)
    assert checked(site) == "pass"
