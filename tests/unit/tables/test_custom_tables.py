# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of an application's own making in PostgreSQL, described in the inventory: partitions, rules of its own for
rows, empty names, odd times, triggers, rows of other tables that go with a memory."""
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import InvalidInput
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

    def __init__(self, folder, server, made, table=MEMORIES):
        super().__init__(folder, server, "custom", tables=[table])
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


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_a_partitioned_table_is_rebuilt(made, strategy):
    site = made(PARTITIONED, FILL)
    before, others = site.dump("tenant = 'ann'", ['"Memories"']), site.rows("bob")
    site.backup()
    catalogue = site.catalogue()
    site.ask("UPDATE \"Memories\" SET text = 'wrong' WHERE \"Key\" = 'note 3' AND tenant = 'ann' RETURNING 1")
    site.ask("DELETE FROM \"Memories\" WHERE \"Key\" IN ('note 1', 'note 2') AND tenant = 'ann' RETURNING 1")
    done = site.rebuild("ann", strategy=strategy, absent="restore")
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
