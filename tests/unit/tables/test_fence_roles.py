# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fence where an application reaches its tables as somebody else: by a view, by a function that runs as its owner,
by another role that it may set."""
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed, CapabilityMissing
from tests.support.postgresql_server import APPLICATION, OWNER
from tests.unit.operations.runbook import attempt
from tests.unit.tables.test_custom_tables import FILL, PARTITIONED, PLAIN, made

__all__ = ["made"]
OURS = "SELECT count(*) FROM {} WHERE tenant = 'ann'"
#: How an application that does not own the tables reads as their owner.
AS_OWNER = {
    "view": ("CREATE VIEW look AS SELECT * FROM \"Memories\"", "", "look"),
    "view of a view": (
        "CREATE VIEW inner_look WITH (security_invoker = true) AS SELECT * FROM \"Memories\"; "
        "CREATE VIEW look AS SELECT * FROM inner_look", "", "look",
    ),
    "function": (
        "CREATE FUNCTION look() RETURNS SETOF \"Memories\" LANGUAGE sql SECURITY DEFINER AS "
        "'SELECT * FROM \"Memories\"'; ALTER FUNCTION look() SET search_path FROM CURRENT", "", "look()",
    ),
    "role": (
        "ALTER ROLE agent NOINHERIT; GRANT keeper TO agent; ALTER ROLE agent INHERIT", "SET ROLE keeper", '"Memories"',
    ),
}  # fmt: skip


@pytest.fixture
def kept(made):
    """Tables that belong to a role which is neither the application nor the operator."""
    sites = []

    def make(tables=PLAIN):
        site = made(tables, FILL)
        site.sql("CREATE ROLE keeper")
        sites.append(site)
        site.sql(f"GRANT keeper TO {OWNER}; GRANT USAGE, CREATE ON SCHEMA {site.schema} TO keeper")
        tables = "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace::regnamespace"
        for (table,) in site.sql(f"{tables} = %s::regnamespace", site.schema):
            site.sql(f"ALTER TABLE {table} OWNER TO keeper; GRANT ALL ON {table} TO {APPLICATION}")
        return site

    yield make
    for site in sites:
        site.application.execute("RESET ROLE")
        site.sql("REASSIGN OWNED BY keeper TO postgres; DROP OWNED BY keeper; DROP ROLE keeper")


def as_keeper(site, text):
    site.sql(f"SET ROLE keeper; {text}; RESET ROLE")
    site.sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA {site.schema} TO {APPLICATION}")


@pytest.mark.parametrize("how", AS_OWNER)
def test_who_reads_as_the_owner_meets_the_fence_and_all_is_as_it_was_afterwards(kept, how):
    site, (text, before, name) = kept(), AS_OWNER[how]
    if how == "role":
        site.sql(text)
    else:
        as_keeper(site, text)
    catalogue = site.catalogue()
    site.application.execute(before)
    assert site.ask(OURS.format(name)) == [(8,)]
    proof = site.step("isolate", attempt(), "ann")["proof"]
    assert proof["reads_refused"] and proof["writes_refused"]
    assert site.ask(OURS.format(name)) == [(0,)] and site.ask(f"SELECT count(*) FROM {name}") == [(16,)]
    site.close_by_release("ann")
    assert site.ask(OURS.format(name)) == [(8,)] and site.catalogue() == catalogue


def test_a_view_that_comes_in_the_quarantine_is_found_and_isolate_closes_the_hole(kept):
    site = kept(PARTITIONED)
    run = attempt()
    # of a native store in the same database, which shows nobody a row
    own = f"{site.schema}.memops_create_namespace() RETURNS boolean"
    site.sql(f"CREATE FUNCTION {own} LANGUAGE sql SECURITY DEFINER AS 'SELECT true'")
    site.step("isolate", run, "ann")
    as_keeper(site, 'CREATE VIEW look AS SELECT * FROM "Part of ann"')
    assert site.ask("SELECT count(*) FROM look") == [(8,)]
    with site.open() as store:
        proof = store.prove("ann")
    assert not proof["reads_refused"] and any("which reads as its owner" in line for line in proof["detail"])
    assert site.step("isolate", run, "ann")["proof"]["reads_refused"]
    assert site.ask("SELECT count(*) FROM look") == [(0,)]
    site.close_by_release("ann")


def test_a_view_of_a_superuser_fails_the_proof_and_what_is_said_ends_that(made):
    site = made(PLAIN, FILL)
    site.sql(f'CREATE VIEW look AS SELECT * FROM "Memories"; GRANT SELECT ON look TO {APPLICATION}')
    with pytest.raises(CannotProceed, match=r"look shows agent all rows, as it reads as postgres") as caught:
        site.step("isolate", attempt(), "ann")
    assert site.ask(OURS.format("look")) == [(8,)]  # as it says
    assert "memops fence" in site.refused("DELETE FROM \"Memories\" WHERE tenant = 'ann'")
    site.sql(caught.value.message.partition("end that: ")[2].partition(", or")[0])
    assert site.step("isolate", attempt(takeover=site.last_attempt("ann")), "ann")["proof"]["reads_refused"]
    assert site.ask(OURS.format("look")) == [(0,)]
    site.close_by_release("ann")


def test_copies_and_functions_of_a_superuser_are_told(made):
    site = made(PLAIN, FILL)
    site.sql(
        f'CREATE MATERIALIZED VIEW copy AS SELECT * FROM "Memories"; GRANT SELECT ON copy TO {APPLICATION}; '
        "CREATE FUNCTION look() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM \"Memories\"'"
    )
    told = site.step("isolate", attempt(), "ann")["proof"]["not_fenced"]
    assert any("copy: a copy of the rows" in line for line in told)
    assert any("look(): it reads as postgres" in line for line in told)
    site.close_by_release("ann")


def test_an_application_that_may_set_a_role_past_the_rules_is_not_said_to_be_fenced(made):
    """As PostgREST's user, which becomes another role with each request."""
    site = made(PLAIN, FILL)
    site.sql(f"CREATE ROLE service BYPASSRLS; GRANT service TO {APPLICATION}")
    try:
        with pytest.raises(CapabilityMissing, match="agent, which may act as service, which has BYPASSRLS"):
            site.step("isolate", attempt(), "ann")
    finally:
        site.sql("DROP ROLE service")
    site.step("isolate", attempt(), "ann")
    site.close_by_release("ann")


@pytest.mark.parametrize("tables", [PLAIN, PARTITIONED], ids=["plain", "partitioned"])
def test_rules_that_a_migration_makes_in_the_quarantine_go_on_holding(made, tables):
    site = made(tables, FILL)
    site.step("isolate", attempt(), "bob")
    site.step("isolate", attempt(), "ann")
    site.sql(f"GRANT USAGE ON SCHEMA {site.schema} TO {OWNER}; CREATE ROLE tenant; GRANT tenant TO {APPLICATION}")
    try:
        site.sql(f'GRANT USAGE ON SCHEMA {site.schema} TO tenant; GRANT ALL ON "Memories" TO tenant')
        site.application.execute(
            'ALTER TABLE "Memories" ENABLE ROW LEVEL SECURITY; '
            "CREATE POLICY own ON \"Memories\" TO tenant USING (tenant = 'eve')"
        )
        for who in ("bob", "ann"):
            site.close_by_release(who)
        site.application.execute("SET ROLE tenant")
        assert site.ask('SELECT DISTINCT tenant FROM "Memories"') == [("eve",)]
        site.application.execute("RESET ROLE")
        assert site.ask('SELECT count(*) FROM "Memories"') == [(24,)]
    finally:
        site.application.execute("RESET ROLE")
        site.sql("DROP OWNED BY tenant; DROP ROLE tenant")


def test_what_still_shows_rows_or_answers_without_an_error_is_told(made):
    site = made(PLAIN, FILL)
    held = "DECLARE held CURSOR WITH HOLD FOR SELECT * FROM \"Memories\" WHERE tenant = 'ann'"
    site.application.execute(f"BEGIN; {held}; COMMIT")
    told = site.step("isolate", attempt(), "ann")["proof"]["not_fenced"]
    assert len(site.ask("FETCH ALL FROM held")) == 8 and any("a cursor WITH HOLD from before" in line for line in told)
    merge = (
        "MERGE INTO \"Memories\" m USING (VALUES ('ann', 'note 1')) AS v(tenant, key) ON m.tenant = v.tenant "
        "AND m.\"Key\" = v.key WHEN MATCHED THEN UPDATE SET text = 'merged'"
    )
    assert site.application.execute(merge).rowcount == 0 and any("a raw MERGE" in line for line in told)
    assert "COPY FROM not supported" in site.refused("COPY \"Memories\" FROM STDIN")
    site.close_by_release("ann")
