# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Triggers, deferred keys and partitions of an application, while rows come back to its tables: straight into them, in
place of all rows (hard), and one by one (soft)."""
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed, InvalidInput
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore
from tests.unit.operations.runbook import NAME, attempt
from tests.unit.tables.test_custom_tables import COLUMNS, FILL, PLAIN, made

__all__ = ["made"]
WAYS = ("direct", "hard", "soft")
#: What changes a row after it came, and what forbids rows, as PL/pgSQL; what it is for.
CHANGES = (
    "EXECUTE format('UPDATE %s SET text = $1 WHERE tenant = $2 AND \"Key\" = $3 AND text <> $1', TG_RELID::regclass) "
    "USING 'changed', NEW.tenant, NEW.\"Key\"; RETURN NULL;"
)
FORBIDS = "RAISE EXCEPTION 'no more memories today';"
NOTES = "INSERT INTO noted SELECT coalesce(NEW.\"Key\", OLD.\"Key\"); RETURN NULL;"
TOUCHES = "NEW.changed = now(); RETURN NEW;"
ODD = "\"Key\" LIKE '%2' OR \"Key\" LIKE '%7'"  # keys of those that are lost where not all are


def _trigger(does, fires, what="TRIGGER"):
    return (
        f"CREATE FUNCTION acts() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {does} END$$; "
        f'CREATE {what} acts {fires.format(table=chr(34) + "Memories" + chr(34))} EXECUTE FUNCTION acts();'
    )


def _noting(made, way):
    """An application whose trigger notes each change in a table that it names without a schema."""
    site = made(
        PLAIN, FILL, "CREATE TABLE noted (key text);",
        _trigger(NOTES, "AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW"),
    )  # fmt: skip
    lost = Lost(site, way)
    site.sql("TRUNCATE noted")
    return site, lost


class Lost:
    """A namespace of which rows are gone, and the same command to bring them back, again and again."""

    def __init__(self, site, way):
        self.site, self.way, self.run = site, way, attempt()
        self.before = self.rows()
        site.backup()
        if way == "direct":
            site.sql("DELETE FROM \"Memories\" WHERE tenant = 'ann'")
            site.sql(f"DROP SCHEMA {site.own} CASCADE")
        else:
            site.sql(f"DELETE FROM \"Memories\" WHERE tenant = 'ann' AND ({ODD})")
        self.left = self.rows()

    def rows(self):
        return self.site.dump("tenant = 'ann'", ['"Memories"'])

    def bring_back(self):
        site = self.site
        if self.way != "direct":
            site.rebuild("ann", strategy=self.way, absent="restore", run=self.run)
            return
        restore.restore(
            store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace="ann",
            create=True,
        )  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_trigger_that_waits_for_the_commit_changes_no_row_unnoticed(made, way):
    site = made(PLAIN, FILL)
    lost = Lost(site, way)
    site.application.execute(_trigger(
        CHANGES, "AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.\"Key\" = 'note 2')",
        "CONSTRAINT TRIGGER",
    ))  # fmt: skip
    with pytest.raises(CannotProceed, match="trigger of the application") as caught:
        lost.bring_back()
    assert f'ALTER TABLE {site.schema}."Memories" DISABLE TRIGGER acts' in caught.value.next_step
    assert lost.rows() == lost.left
    site.application.execute('ALTER TABLE "Memories" DISABLE TRIGGER acts')
    lost.bring_back()
    assert lost.rows() == lost.before


@pytest.mark.parametrize("way", WAYS)
def test_rows_whose_foreign_key_waits_for_the_commit_come_back_past_a_trigger_that_changes_them(made, way):
    """PostgreSQL alters no table whose keys or triggers are still to be looked at."""
    site = made(
        "CREATE TABLE tenants (id text PRIMARY KEY); INSERT INTO tenants VALUES ('ann'), ('bob'), ('eve');", PLAIN,
        'ALTER TABLE "Memories" ADD FOREIGN KEY (tenant) REFERENCES tenants DEFERRABLE INITIALLY DEFERRED;', FILL,
        _trigger(TOUCHES, "BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW"),
    )  # fmt: skip
    lost, catalogue = Lost(site, way), site.catalogue()
    lost.bring_back()
    assert lost.rows() == lost.before and site.catalogue() == catalogue


@pytest.mark.parametrize("way", WAYS)
def test_a_trigger_finds_the_tables_beside_those_of_the_memories_as_it_always_does(made, way):
    site, lost = _noting(made, way)
    lost.bring_back()
    assert lost.rows() == lost.before and ("note 7",) in site.sql("SELECT key FROM noted")


@pytest.mark.parametrize("way", WAYS)
def test_where_anybody_may_make_functions_none_is_run_by_accident_and_the_trigger_is_named(made, way):
    site, lost = _noting(made, way)
    site.sql(f"GRANT CREATE ON SCHEMA {site.schema} TO PUBLIC")
    with pytest.raises(CannotProceed, match=f'{site.schema}.acts, refuses this .* relation "noted"') as caught:
        lost.bring_back()
    assert "ALTER FUNCTION … SET search_path" in caught.value.next_step and lost.rows() == lost.left
    site.application.execute(f"ALTER FUNCTION acts() SET search_path = {site.schema}")
    lost.bring_back()
    assert lost.rows() == lost.before and ("note 7",) in site.sql("SELECT key FROM noted")


@pytest.mark.parametrize("each", ["BEFORE INSERT ON {table} FOR EACH STATEMENT",
                                  "AFTER INSERT ON {table} FOR EACH ROW"])  # fmt: skip
@pytest.mark.parametrize("way", WAYS)
def test_what_an_application_forbids_is_said_to_be_forbidden_by_it(made, way, each):
    site = made(PLAIN, FILL)
    lost = Lost(site, way)
    site.application.execute(_trigger(FORBIDS, each))
    with pytest.raises(CannotProceed, match=r"acts, refuses this .*no more memories today") as caught:
        lost.bring_back()
    assert "DISABLE TRIGGER" in caught.value.next_step and lost.rows() == lost.left
    site.application.execute('ALTER TABLE "Memories" DISABLE TRIGGER acts')
    lost.bring_back()
    assert lost.rows() == lost.before


@pytest.mark.parametrize("way", WAYS)
def test_a_trigger_that_is_off_in_one_partition_stays_off_there(made, way):
    site = made(
        f'CREATE TABLE "Memories" ({COLUMNS}, PRIMARY KEY (tenant, "Key")) PARTITION BY HASH ("Key");'
        'CREATE TABLE one PARTITION OF "Memories" FOR VALUES WITH (MODULUS 2, REMAINDER 0);'
        'CREATE TABLE two PARTITION OF "Memories" FOR VALUES WITH (MODULUS 2, REMAINDER 1);', FILL,
        _trigger(TOUCHES, "BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW"), "ALTER TABLE two DISABLE TRIGGER acts;",
    )  # fmt: skip
    lost = Lost(site, way)

    def states():
        return site.sql(
            "SELECT tgrelid::regclass::text, tgenabled FROM pg_trigger WHERE tgname = 'acts' ORDER BY 1, 2"
        )

    before = states()
    assert [state for _table, state in before] == ["O", "O", "D"]
    lost.bring_back()
    assert lost.rows() == lost.before and states() == before


def test_a_partition_that_is_missing_is_asked_for_and_then_the_same_command_finishes(made):
    """One that comes after the namespace was made for its restore has no rules yet."""
    site = made(
        f'CREATE TABLE "Memories" ({COLUMNS}, PRIMARY KEY (tenant, "Key")) PARTITION BY LIST (tenant);'
        'CREATE TABLE ann PARTITION OF "Memories" FOR VALUES IN (\'ann\');'
        'CREATE TABLE others PARTITION OF "Memories" FOR VALUES IN (\'bob\', \'eve\');', FILL,
    )  # fmt: skip
    lost = Lost(site, "direct")
    site.application.execute("DROP TABLE ann")
    with pytest.raises(InvalidInput, match="no partition") as caught:
        lost.bring_back()
    assert "make the partition" in caught.value.next_step
    site.application.execute('CREATE TABLE ann PARTITION OF "Memories" FOR VALUES IN (\'ann\')')
    lost.bring_back()
    assert lost.rows() == lost.before
    assert site.ask("SELECT count(*) FROM ann") == [(8,)]  # nothing hides them from the application
    assert not site.sql(
        "SELECT 1 FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relnamespace = %s::regnamespace",
        site.schema,
    )


def test_rows_that_a_later_rule_of_a_table_forbids_are_not_said_to_be_too_big(made):
    site = made(PLAIN, FILL)
    lost = Lost(site, "direct")
    site.sql("DELETE FROM \"Memories\"")
    site.application.execute('ALTER TABLE "Memories" ADD CHECK (length(text) < 3)')
    with pytest.raises(InvalidInput, match="check constraint") as caught:
        lost.bring_back()
    assert "take that rule back" in caught.value.next_step
