# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of an application's own making in PostgreSQL, described in the inventory: partitions, rules of its own for
rows, empty names, odd times, triggers, rows of other tables that go with a memory."""
from __future__ import annotations

import contextlib
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    InvalidInput,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.postgresql_server import PostgresqlServer
from tests.unit.operations.runbook import attempt
from tests.unit.tables.tables_help import TablesSite

MEMORIES = {
    "name": "Memories", "namespace": {"columns": ["tenant"]}, "key": ["Key"], "payload": ["text"], "updated": "changed",
}  # fmt: skip
COLUMNS = "tenant text NOT NULL, \"Key\" text NOT NULL, text text, changed timestamptz DEFAULT now()"
PLAIN = f'CREATE TABLE "Memories" ({COLUMNS}, PRIMARY KEY (tenant, "Key"));'
PARTITIONED = f"""
CREATE TABLE "Memories" ({COLUMNS}, PRIMARY KEY (tenant, "Key")) PARTITION BY LIST (tenant);
CREATE TABLE "Part of ann" PARTITION OF "Memories" FOR VALUES IN ('ann') PARTITION BY HASH ("Key");
CREATE TABLE ann_0 PARTITION OF "Part of ann" FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE ann_1 PARTITION OF "Part of ann" FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE rest PARTITION OF "Memories" DEFAULT;"""
FILL = """
INSERT INTO "Memories" SELECT who, 'note ' || n, who || ' ' || n FROM unnest(ARRAY['ann', 'bob', 'eve']) who,
  generate_series(1, 8) n;"""


class CustomSite(TablesSite):
    """``made``: what the application, which owns its tables, runs once."""

    def __init__(self, folder, server, made, table=None):
        super().__init__(folder, server, "custom", tables=[table or MEMORIES])
        self.application = server.connect(self.store["application_user"])
        self.application.execute(f"SET search_path = {self.schema}, public")
        self.application.execute(made)

    def ask(self, text):
        return self.application.execute(text).fetchall()

    def refused(self, text):
        """What the application is told."""
        with pytest.raises(Exception) as caught:
            self.application.execute(text)
        return str(caught.value)

    def texts(self, namespace="ann"):
        """{key: the text of the record}, as a snapshot would have them."""
        return {key: row[8] for key, row in self.rows(namespace).items()}

    def wipe(self):
        self.application.close()
        super().wipe()


@pytest.fixture
def made(tmp_path, postgresql_server):
    sites = []

    def make(*texts, **options):
        sites.append(CustomSite(tmp_path / str(len(sites)), postgresql_server, " ".join(texts), **options))
        return sites[-1]

    yield make
    for site in sites:
        site.wipe()


def test_records_of_a_partitioned_table_are_those_of_their_namespace(made):
    """Rows of several partitions have the same place, and often the same key."""
    site = made(PARTITIONED, FILL)
    for who in ("ann", "bob"):
        texts = site.texts(who)
        assert sorted(texts) == [f"note {n}" for n in range(1, 9)]
        assert all(f"{who} {key[5:]}".encode() in payload for key, payload in texts.items())


def test_a_partitioned_table_is_rebuilt(made):
    site = made(PARTITIONED, FILL)
    before, others = site.dump("tenant = 'ann'", ['"Memories"']), site.rows("bob")
    site.backup()
    catalogue = site.catalogue()
    site.ask("UPDATE \"Memories\" SET text = 'wrong' WHERE \"Key\" = 'note 3' AND tenant = 'ann' RETURNING 1")
    site.ask("DELETE FROM \"Memories\" WHERE \"Key\" IN ('note 1', 'note 2') AND tenant = 'ann' RETURNING 1")
    done = site.rebuild("ann", strategy="hard", absent="restore")
    assert done["validate"]["verdict"] == "pass"
    assert site.dump("tenant = 'ann'", ['"Memories"']) == before
    assert (site.rows("bob"), site.catalogue()) == (others, catalogue)


def test_the_fence_holds_for_partitions_by_their_own_names(made):
    site = made(PARTITIONED, FILL)
    catalogue = site.catalogue()
    run = attempt()
    assert site.step("isolate", run, "ann")["changed"]
    for table in ('"Memories"', '"Part of ann"', "ann_0", "ann_1"):
        assert site.ask(f"SELECT count(*) FROM {table} WHERE tenant = 'ann'") == [(0,)]
        assert "memops fence" in site.refused(f"TRUNCATE {table}")
    assert "memops fence" in site.refused("INSERT INTO \"Part of ann\" VALUES ('ann', 'new')")
    assert "memops fence" in site.refused("UPDATE ann_0 SET text = 'x'")
    assert "memops fence" in site.refused("DELETE FROM ann_1")
    assert site.ask("SELECT count(*) FROM rest") == [(16,)]
    assert site.ask("UPDATE rest SET text = 'new' WHERE tenant = 'bob' RETURNING 1") == [(1,)] * 8
    # a partition that comes is a hole, and is found; one that goes takes no rule with it
    site.application.execute(
        'ALTER TABLE "Part of ann" DETACH PARTITION ann_1; ALTER TABLE ann_1 RENAME TO former; '
        'CREATE TABLE ann_1 PARTITION OF "Part of ann" FOR VALUES WITH (MODULUS 2, REMAINDER 1)'
    )
    with site.open() as store:
        assert not store.prove("ann")["reads_refused"]
    assert site.step("isolate", run, "ann")["changed"]
    with site.open() as store:
        assert store.prove("ann")["reads_refused"]
    site.step("release", run, "ann")
    assert site.ask("SELECT count(*) > 0 FROM former") == [(True,)]
    site.application.execute("DROP TABLE ann_1; ALTER TABLE former RENAME TO ann_1; ")
    site.application.execute(
        'ALTER TABLE "Part of ann" ATTACH PARTITION ann_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1)'
    )
    assert site.catalogue() == catalogue


def test_a_table_that_others_inherit_from_is_refused(made):
    site = made(PLAIN, 'CREATE TABLE child () INHERITS ("Memories");')
    with pytest.raises(InvalidInput, match="child inherits from Memories"):
        site.backup()


def test_an_application_that_owns_its_tables_and_has_rules_of_its_own_is_fenced(made):
    """Forced row-level security binds the owner; nothing else of the application's rules may begin to bind it."""
    site = made(
        PLAIN, FILL, 'ALTER TABLE "Memories" ENABLE ROW LEVEL SECURITY;'
        'CREATE POLICY theirs ON "Memories" USING (tenant = current_setting(\'app.tenant\', true))',
    )  # fmt: skip
    catalogue, run = site.catalogue(), attempt()
    site.step("isolate", run, "ann")
    assert site.ask('SELECT tenant, count(*) FROM "Memories" GROUP BY 1 ORDER BY 1') == [("bob", 8), ("eve", 8)]
    assert (len(site.rows("ann")), len(site.rows("bob"))) == (8, 8)
    site.step("release", run, "ann")
    assert site.ask('SELECT count(*) FROM "Memories"') == [(24,)]
    assert site.catalogue() == catalogue


def test_rows_without_a_namespace_or_a_key_are_told_of_by_every_backup(made):
    site = made(
        'CREATE TABLE "Memories" (tenant text, "Key" text, text text, changed timestamptz, UNIQUE (tenant, "Key"));',
        FILL,
        "INSERT INTO \"Memories\" VALUES (NULL, 'k', 'x'), ('', 'k', 'x'), ('ann', NULL, 'x'), ('ann', NULL, 'y')",
    )  # fmt: skip
    told = "4 rows of Memories belong to no namespace or have no key: no snapshot holds them"
    assert told in site.backup()["warnings"]
    assert len(site.rows("ann")) == 8
    with site.open() as store, store.reader() as reader:
        assert [state.name for state in reader.namespaces()] == ["ann", "bob", "eve"]
        assert (reader.count("ann"), told in store.warnings()) == (8, True)


TIMES = (
    ("integer", "seconds", {"1795972284": 1795972284000000, "-1": -1000000}),
    ("smallint", "milliseconds", {"32767": 32767000}),
    ("bigint", "milliseconds", {"1795972284123": 1795972284123000, "9000000000000000001": 0}),
    ("double precision", "seconds", {"1795972284.25": 1795972284250000, "NaN": 0, "Infinity": 0, "1e300": 0}),
    ("numeric", "seconds", {"1795972284.000001": 1795972284000001, "NaN": 0, "-Infinity": 0}),
    ("timestamp", "timestamp", {"2026-01-01": 1767225600000000, "infinity": 0, "294276-12-31": 0}),
    ("date", "timestamp", {"2026-01-01": 1767225600000000, "-infinity": 0, "5874897-12-31": 0}),
)


def test_a_time_of_any_number_is_read_or_is_none(made):
    def one(number, kind, times):
        values = ", ".join(f"('ann', '{text}', '{text}')" for text in times)
        return (
            f'CREATE TABLE m{number} (tenant text, "Key" text, changed {kind}, PRIMARY KEY (tenant, "Key"));'
            f"INSERT INTO m{number} VALUES {values};"
        )

    site = made(*(one(number, kind, times) for number, (kind, _form, times) in enumerate(TIMES)))
    for number, (_kind, form, times) in enumerate(TIMES):
        table = {**MEMORIES, "name": f"m{number}", "payload": [], "updated": {"column": "changed", "form": form}}
        site.store["tables"] = [table]
        assert {key: row[4] for key, row in site.rows("ann").items()} == times


def test_how_a_server_writes_times_is_no_part_of_a_key(made):
    site = made(
        'CREATE TABLE "Memories" (tenant text, "Key" timestamptz, text text, changed timestamptz, '
        'PRIMARY KEY (tenant, "Key"));'
        "INSERT INTO \"Memories\" SELECT 'ann', '2026-01-01Z'::timestamptz + n * interval '1 h' "
        "FROM generate_series(1, 3) n",
    )  # fmt: skip
    before = site.rows("ann")
    assert "2026-01-01 01:00:00+00" in before
    site.root.execute("ALTER ROLE memops SET timezone = 'Asia/Tokyo'; ALTER ROLE memops SET datestyle = 'German'")
    try:
        assert site.rows("ann") == before
    finally:
        site.root.execute("ALTER ROLE memops RESET timezone; ALTER ROLE memops RESET datestyle")


def test_rows_of_other_tables_that_would_go_with_a_memory_stop_the_repair(made):
    """Nobody told of them, so no snapshot has them."""
    site = made(
        PLAIN, FILL, 'CREATE TABLE feedback (tenant text, "Key" text, stars int, '
        'FOREIGN KEY (tenant, "Key") REFERENCES "Memories" ON DELETE CASCADE);',
    )  # fmt: skip
    site.backup()
    site.application.execute(
        "INSERT INTO \"Memories\" VALUES ('ann', 'new', 'made up'); INSERT INTO feedback VALUES ('ann', 'new', 5)"
    )
    before, run = site.dump("true", ['"Memories"', "feedback"]), attempt()
    with site.open() as store:
        assert any("feedback are deleted when their row of Memories is removed" in line for line in store.warnings())
    for strategy in ("soft", "hard"):
        with pytest.raises(CannotProceed, match=r"1 row of .*feedback, which are deleted"):
            site.rebuild("ann", Window(keys=frozenset(["new"])), strategy, run=run)
        assert site.dump("true", ['"Memories"', "feedback"]) == before
    beside = {"name": "feedback", "parent": {"tenant": "tenant", "Key": "Key"}, "key": ["stars"]}
    site.store["tables"] = [{**MEMORIES, "beside": [beside]}]
    site.step("diagnose", run, "ann", window=Window(keys=frozenset(["new"])), again=True)
    site.rebuild("ann", Window(keys=frozenset(["new"])), "soft", run=run)
    assert site.ask("SELECT count(*) FROM feedback") == [(0,)]
    assert b"feedback" in site.aside("ann")["new"][0][8]


@pytest.mark.parametrize(("strategy", "table"), [("hard", PLAIN), ("soft", PARTITIONED)], ids=["plain", "partitioned"])
def test_rows_come_back_as_they_were_past_triggers_that_would_change_them(made, strategy, table):
    """The commonest trigger there is gives every row that is put the time of now; another takes no deletion."""
    site = made(
        table, FILL, "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF TG_OP = 'DELETE' THEN "
        "RAISE 'nothing is deleted here'; END IF; NEW.changed := clock_timestamp(); RETURN NEW; END$$;"
        'CREATE TRIGGER "Touch" BEFORE INSERT OR UPDATE OR DELETE ON "Memories" FOR EACH ROW EXECUTE FUNCTION touch();'
        'ALTER TABLE "Memories" ENABLE ALWAYS TRIGGER "Touch"',
    )  # fmt: skip
    catalogue, before = site.catalogue(), site.dump("tenant = 'ann'", ['"Memories"'])
    modes = site.sql("SELECT tgrelid, tgname, tgenabled FROM pg_trigger WHERE tgname = 'Touch' ORDER BY 1, 2")
    site.backup()
    site.root.execute("SET session_replication_role = replica")
    site.sql('ALTER TABLE "Memories" DISABLE TRIGGER "Touch"')
    site.sql("DELETE FROM \"Memories\" WHERE tenant = 'ann' AND \"Key\" = 'note 2'")
    site.sql("INSERT INTO \"Memories\" VALUES ('ann', 'new', 'made up', now())")
    site.sql('ALTER TABLE "Memories" ENABLE ALWAYS TRIGGER "Touch"')
    keys = frozenset(["new", "note 2"])
    assert site.rebuild("ann", Window(keys=keys), strategy)["validate"]["verdict"] == "pass"
    assert site.dump("tenant = 'ann'", ['"Memories"']) == before
    assert site.catalogue() == catalogue
    assert site.sql("SELECT tgrelid, tgname, tgenabled FROM pg_trigger WHERE tgname = 'Touch' ORDER BY 1, 2") == modes


def test_a_column_that_came_with_another_default_for_each_row(made):
    site = made(PLAIN, FILL)
    site.backup()
    site.application.execute('ALTER TABLE "Memories" ADD COLUMN seen timestamptz NOT NULL DEFAULT now()')
    site.application.execute("DELETE FROM \"Memories\" WHERE tenant = 'ann' AND \"Key\" = 'note 1'")
    seen = site.ask('SELECT DISTINCT seen FROM "Memories"')
    site.rebuild("ann", absent="restore")
    assert site.ask('SELECT DISTINCT seen FROM "Memories"') == seen  # what the rows that were there got
    site.application.execute('ALTER TABLE "Memories" ADD COLUMN label uuid NOT NULL DEFAULT gen_random_uuid()')
    site.application.execute("DELETE FROM \"Memories\" WHERE tenant = 'bob' AND \"Key\" = 'note 1'")
    with pytest.raises(CannotProceed, match=r"(seen|label) since, whose default is another for each row \("):
        site.rebuild("bob", absent="restore")


def test_a_table_that_refers_to_itself(made):
    """What is removed takes nobody with it, however the damage hung good rows below it."""
    site = made(
        'CREATE TABLE "Memories" (tenant text, "Key" text, text text, changed timestamptz DEFAULT now(), above text, '
        'PRIMARY KEY (tenant, "Key"), FOREIGN KEY (tenant, above) REFERENCES "Memories" ON DELETE CASCADE);'
        "INSERT INTO \"Memories\" (tenant, \"Key\", above) SELECT 'ann', 'note ' || n, "
        "CASE WHEN n > 1 THEN 'note ' || n - 1 END FROM generate_series(1, 9) n;",
    )  # fmt: skip
    before = site.dump("true", ['"Memories"'])
    site.backup()
    site.application.execute(
        "INSERT INTO \"Memories\" (tenant, \"Key\", above) VALUES ('ann', 'new', 'note 9');"
        "UPDATE \"Memories\" SET above = 'new', changed = now() WHERE \"Key\" = 'note 2'"
    )
    damaged, run = site.dump("true", ['"Memories"']), attempt()
    with pytest.raises(CannotProceed, match="1 other that refers to them, which are deleted"):
        site.rebuild("ann", Window(keys=frozenset(["new"])), "soft", run=run)
    assert site.dump("true", ['"Memories"']) == damaged
    wider = Window(keys=frozenset(["new", "note 2"]))
    site.step("diagnose", run, "ann", window=wider, again=True)
    assert site.rebuild("ann", wider, "soft", run=run)["validate"]["verdict"] == "pass"
    assert site.dump("true", ['"Memories"']) == before


def test_a_row_whose_own_row_above_it_is_gone_says_what_to_bring_back(made):
    site = made(
        "CREATE TABLE users (tenant text PRIMARY KEY); INSERT INTO users VALUES ('ann'), ('bob'), ('eve');",
        PLAIN, FILL, 'ALTER TABLE "Memories" ADD FOREIGN KEY (tenant) REFERENCES users ON DELETE CASCADE',
    )  # fmt: skip
    site.backup()
    site.application.execute("DELETE FROM users WHERE tenant = 'ann'")
    with pytest.raises(CannotProceed, match="bring back the row of the other table that it refers to"):
        site.rebuild("ann", absent="restore")


def test_what_only_one_row_may_have_comes_back_to_each_that_had_it(made):
    site = made(PLAIN, FILL, 'ALTER TABLE "Memories" ADD place int, ADD UNIQUE (tenant, place);'
                'UPDATE "Memories" SET place = substr("Key", 6)::int')  # fmt: skip
    before = site.dump("tenant = 'ann'", ['"Memories"'])
    site.backup()
    for place, key in ((100, 1), (1, 2), (2, 1)):
        site.application.execute(
            f"UPDATE \"Memories\" SET place = {place} WHERE tenant = 'ann' AND \"Key\" = 'note {key}'"
        )
    site.rebuild("ann", Window(keys=frozenset(["note 1", "note 2"])), "hard")
    assert site.dump("tenant = 'ann'", ['"Memories"']) == before


def test_an_array_of_a_type_that_was_made_anew_comes_back(made):
    """As in another database, the type has another number there, which PostgreSQL puts into the bytes of each array."""
    type_and_table = (
        "CREATE TYPE mood AS ENUM ('calm', 'wild');"
        'CREATE TABLE "Memories" (tenant text, "Key" text, text mood[], changed date, PRIMARY KEY (tenant, "Key"));'
        "INSERT INTO \"Memories\" VALUES ('ann', 'one', '{calm,wild}', '2026-01-01'), "
        "('ann', 'none', '{}', '2026-01-01'), ('ann', 'null', NULL, '2026-01-01'), "
        "('ann', 'two', '{{calm,NULL},{wild,calm}}', '2026-01-01');"
    )
    site = made(type_and_table)
    before = site.dump("true", ['"Memories"'])
    site.backup()
    site.application.execute(f'DROP TABLE "Memories"; DROP TYPE mood; CREATE TYPE other AS (a int); {type_and_table}')
    site.application.execute("UPDATE \"Memories\" SET text = '{wild}' WHERE \"Key\" = 'two'")
    site.application.execute("DELETE FROM \"Memories\" WHERE \"Key\" IN ('one', 'none')")
    done = site.rebuild("ann", absent="restore")
    assert done["plan"]["records"]["repair"] == 3
    assert site.dump("true", ['"Memories"']) == before


def test_who_stands_in_the_way_of_a_fence_goes_or_is_named(tmp_path):
    """An automatic vacuum of a large table takes hours, and ends for who waits long enough; a prepared transaction has
    no session."""
    slow = "autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_threshold = 1"
    with PostgresqlServer("max_prepared_transactions = 1", "autovacuum_naptime = 1s") as server:
        site = CustomSite(tmp_path, server, PLAIN + FILL)
        site.store["busy_timeout"] = 3
        site.application.execute(
            f'ALTER TABLE "Memories" SET ({slow}, autovacuum_vacuum_scale_factor = 0);'
            "INSERT INTO \"Memories\" SELECT 'eve', n::text, repeat('x', 1000) FROM generate_series(1, 4000) n;"
            "UPDATE \"Memories\" SET text = text || 'y'"
        )
        end = time.monotonic() + 300
        while not site.sql("SELECT 1 FROM pg_stat_progress_vacuum WHERE relid = '\"Memories\"'::regclass"):
            assert time.monotonic() < end, "no vacuum began"
            time.sleep(0.1)
        run = attempt()
        assert site.step("isolate", run, "ann")["changed"]
        site.application.execute('ALTER TABLE "Memories" SET (autovacuum_enabled = off)')
        site.step("release", run, "ann")
        site.application.execute("BEGIN; UPDATE \"Memories\" SET text = 'x' WHERE tenant = 'bob'")
        site.application.execute("PREPARE TRANSACTION 'half done'")
        site.store["busy_timeout"] = 1
        with pytest.raises(StoreUnavailable, match=r"prepared as 'half done'.* ROLLBACK PREPARED 'half done'"):
            site.step("isolate", run, "eve")
        site.application.execute("ROLLBACK PREPARED 'half done'")
        assert site.step("isolate", run, "eve")["changed"]
        site.wipe()
        native = open_store(server.store("own", busy_timeout=0.2), create=True)
        with contextlib.closing(native), server.connect() as con:
            native.create_namespace("n")
            con.execute("BEGIN; SELECT 1 FROM own.memops_namespace FOR SHARE")
            con.execute("PREPARE TRANSACTION 'half done'")
            with pytest.raises(StoreUnavailable, match=r"prepared as 'half done'.* ROLLBACK PREPARED 'half done'"):
                native.fence(native.claim("n", "attempt-1", "operator", new_incident="inc-1"))
            con.execute("ROLLBACK PREPARED 'half done'")


def test_an_owner_who_frees_himself_from_the_rules_is_bound_again(made):
    site = made(PLAIN, FILL)
    run = attempt()
    site.step("isolate", run, "ann")
    site.application.execute('ALTER TABLE "Memories" NO FORCE ROW LEVEL SECURITY')
    assert site.ask("SELECT count(*) FROM \"Memories\" WHERE tenant = 'ann'") == [(8,)]
    with site.open() as store, store.reader() as reader:
        assert "does not bind the application" in reader.structure()[0]
    assert site.step("isolate", run, "ann")["changed"]
    assert site.ask("SELECT count(*) FROM \"Memories\" WHERE tenant = 'ann'") == [(0,)]


def test_a_primary_key_that_went_with_the_damage_keeps_nobody_from_isolating(made):
    site = made(PLAIN, FILL)
    site.backup()
    site.application.execute('ALTER TABLE "Memories" DROP CONSTRAINT "Memories_pkey"')
    site.application.execute("DELETE FROM \"Memories\" WHERE tenant = 'ann' AND \"Key\" > 'note 4'")
    run = attempt()
    assert site.step("isolate", run, "ann")["changed"]
    assert site.ask("SELECT count(*) FROM \"Memories\" WHERE tenant = 'ann'") == [(0,)]
    with pytest.raises(InvalidInput, match=r"Nothing makes Key and tenant unique .*CREATE UNIQUE INDEX ON") as caught:
        site.rebuild("ann", absent="restore", run=run)
    site.application.execute(str(caught.value).partition("make it again: ")[2])
    site.rebuild("ann", absent="restore", run=run)
    assert len(site.rows("ann")) == 8
