# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runbook on the tables of each framework, which reads and writes them in a process of its own all the while."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.support.frameworks import former_mem0
from tests.unit.operations.runbook import NAME, attempt
from tests.unit.tables.tables_help import Framework


class Case(t.NamedTuple):
    """A layout, the namespace that is damaged and its sibling, the tables, and damage past the framework. ``former``:
    where the framework's former release is found, if it is to be that."""

    layout: str
    namespace: str
    sibling: str
    tables: tuple[str, ...]
    damage: str
    former: t.Callable[[], str] | None = None


CASES = (
    Case("mem0", "user_id=ann", "user_id=anne", ("mem0",),
         "UPDATE mem0 SET vector = NULL WHERE payload ->> 'user_id' = 'ann' AND payload ->> 'n' = '5'"),
    Case("mem0", "agent_id=7", "agent_id=70", ("mem0",),
         "UPDATE mem0 SET vector = NULL WHERE payload ->> 'agent_id' = '7' AND payload ->> 'n' = '5'", former_mem0),
    Case("openai_agents", "session-1", "secret-2", ("agent_sessions", "agent_messages"),
         "UPDATE agent_messages SET message_data = 'cut o' WHERE session_id = 'session-1' AND "
         "id = (SELECT min(id) FROM agent_messages WHERE session_id = 'session-1')"),
    Case("google_adk", "helper/ann", "helper/bob", ("sessions", "events", "user_states"),
         "DELETE FROM events WHERE user_id = 'ann' AND event_data ->> 'invocation_id' = 'i' AND session_id = 's0' AND "
         "id = (SELECT min(id) FROM events WHERE user_id = 'ann' AND session_id = 's0')"),
    Case("agno", "ann", "bob", ("agno_memories",),
         "UPDATE agno_memories SET topics = NULL WHERE memory_id = 'ann 7'"),
    Case("langgraph_checkpoint", "secret-1", "thread-2", ("checkpoints", "checkpoint_blobs", "checkpoint_writes"),
         "UPDATE checkpoint_blobs SET blob = 'x' WHERE thread_id = 'secret-1' AND channel = 'words'; "
         "DELETE FROM checkpoint_writes WHERE thread_id = 'secret-1'"),
)  # fmt: skip


@pytest.fixture(params=CASES, ids=lambda case: case.layout + ("-former" if case.former else ""))
def case(request: pytest.FixtureRequest) -> Case:
    return t.cast(Case, request.param)


@pytest.fixture
def site(case: Case, tmp_path: t.Any, postgresql_server: t.Any) -> t.Iterator[t.Any]:
    variables = {"PYTHONPATH": case.former()} if case.former else {}
    one = Framework(tmp_path, postgresql_server, case.layout, case.tables, **variables)
    yield one
    one.wipe()


def test_a_framework_says_after_a_rebuild_what_it_said_before(case: Case, site: t.Any) -> None:
    def view(namespace: str = case.namespace) -> t.Any:
        return site.app.ask("view", namespace=namespace)

    def dump() -> t.Any:
        return site.dump(tables=case.tables)

    for namespace in (case.namespace, case.sibling):
        site.app.ask("fill", namespace=namespace)
    before, sibling, rows, catalogue = view(), view(case.sibling), dump(), site.catalogue()
    assert before and sibling
    site.backup()
    for strategy in ("soft", "hard"):
        started = now_us()
        site.app.ask("damage", namespace=case.namespace)
        site.sql(case.damage)
        assert dump() != rows
        run = attempt()
        proof = site.step("isolate", run, case.namespace)["proof"]
        assert proof["writes_refused"] and proof["reads_refused"], proof
        assert view() in ([], [[], []]) and view(case.sibling) == sibling
        with pytest.raises(RuntimeError):
            site.app.ask("write", namespace=case.namespace)
        done = site.rebuild(case.namespace, Window(onset=started), strategy, until="validate", run=run)
        assert done["validate"]["verdict"] == "pass", done
        site.step("release", run, case.namespace)
        site.close_incident(case.namespace)
        assert (view(), view(case.sibling), dump(), site.catalogue()) == (before, sibling, rows, catalogue), strategy
    site.sql(f"TRUNCATE {', '.join(case.tables)} RESTART IDENTITY CASCADE")
    site.sql(f"DROP SCHEMA {site.own} CASCADE")
    for namespace in (case.namespace, case.sibling):
        restore.restore(
            store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace=namespace,
            create=True,
        )  # fmt: skip
    assert (view(), view(case.sibling), dump()) == (before, sibling, rows)
    site.app.ask("write", namespace=case.namespace)  # no number is given out again
    assert len(view()) >= len(before) and dump() != rows
    with site.open() as store, store.reader() as reader:
        assert reader.structure() == []
