# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows that refer to each other, or have changed what only one may have: they come back whatever the order."""
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import (
    tables_postgresql_generations,
    tables_postgresql_records,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    apply,
    restore,
    restore_fill,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.unit.operations.runbook import NAME
from tests.unit.tables.test_custom_tables import CustomSite

TABLE = (
    'CREATE TABLE "Memories" (tenant text, "Key" text, text text, changed timestamptz DEFAULT now(), above text, '
    'place int, PRIMARY KEY (tenant, "Key"));'
    "INSERT INTO \"Memories\" (tenant, \"Key\", above, place) SELECT who, to_char(n, '0000'), "
    "CASE WHEN n < 60 THEN to_char(n + 1, '0000') END, n "
    "FROM generate_series(1, 60) n, unnest(ARRAY['ann', 'bob']) who;"
    'ALTER TABLE "Memories" ADD UNIQUE (tenant, place);'
)
HIMSELF = 'ALTER TABLE "Memories" ADD FOREIGN KEY (tenant, above) REFERENCES "Memories" {};'
OTHERS = (
    'CREATE TABLE votes (tenant text, "Key" text, FOREIGN KEY (tenant, "Key") REFERENCES "Memories" {});'
    "INSERT INTO votes SELECT tenant, \"Key\" FROM \"Memories\" WHERE \"Key\"::int % 2 = 0;"
)
CONSTRAINTS = (
    "SELECT conname, condeferrable, condeferred FROM pg_constraint WHERE connamespace = %s::regnamespace ORDER BY 1"
)


@pytest.fixture
def made(tmp_path, postgresql_server, monkeypatch):
    monkeypatch.setattr(apply, "BATCH", 40)
    monkeypatch.setattr(tables_postgresql_records, "PART", 25)
    monkeypatch.setattr(tables_postgresql_generations, "PAGE", 50)
    sites = []

    def make(text):
        sites.append(CustomSite(tmp_path / str(len(sites)), postgresql_server, text))
        return sites[-1]

    yield make
    for site in sites:
        site.wipe()


def state(site, *tables):
    return site.dump("true", ['"Memories"', *tables]), site.sql(CONSTRAINTS, site.schema), site.catalogue()


@pytest.mark.parametrize(("strategy", "does"), [("hard", ""), ("soft", "ON DELETE CASCADE")])
def test_a_row_comes_back_before_the_one_that_it_refers_to(made, does, strategy):
    site = made(TABLE + HIMSELF.format(does))
    before = state(site)
    site.backup()
    site.application.execute("DELETE FROM \"Memories\" WHERE tenant = 'ann'")
    site.rebuild("ann", strategy=strategy, absent="restore", until="apply")
    site.close_by_release("ann")
    assert state(site) == before


def test_rows_that_refer_to_later_ones_come_back_to_an_empty_namespace(made, monkeypatch):
    monkeypatch.setattr(restore_fill, "DIRECT_ROWS", 1)  # a chunk at a time
    site = made(TABLE + "UPDATE \"Memories\" SET text = repeat('x', 20000);" + HIMSELF.format(""))
    before = site.dump("tenant = 'ann'", ['"Memories"'])
    site.backup()
    site.sql('TRUNCATE "Memories"')
    site.sql(f"DROP SCHEMA {site.own} CASCADE")
    done = restore.restore(
        store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace="ann",
        create=True,
    )  # fmt: skip
    assert done["restored"] == 60 and site.dump("true", ['"Memories"']) == before


@pytest.mark.parametrize(
    ("strategy", "last", "does", "kind"),
    [  # in pages of their own, in one, or in transactions of their own
        ("hard", 60, "", "int"),
        ("soft", 30, "", "int"),
        ("hard", 60, "ON DELETE RESTRICT", "varchar(40) NOT NULL"),
        ("soft", 60, "ON DELETE CASCADE", "int NOT NULL"),
        ("soft", 30, "ON DELETE SET NULL", "int"),
    ],
)
def test_what_two_rows_swapped_to_which_others_refer_comes_back(made, strategy, last, does, kind):
    site = made(TABLE.replace("place int", f"place {kind}") + HIMSELF.format("") + OTHERS.format(does))
    before = state(site, "votes")
    site.backup()
    mine = "WHERE tenant = 'ann' AND \"Key\""
    for place, key in ((5000, 2), (2, last), (last, 2)):
        site.application.execute(f"UPDATE \"Memories\" SET place = {place} {mine} = to_char({key}, '0000')")
    site.application.execute(f"UPDATE \"Memories\" SET text = 'wrong' {mine} <= to_char({last}, '0000')")
    keys = frozenset([f" {n:04}" for n in range(1, last + 1)])
    site.rebuild("ann", Window(keys=keys), strategy, until="apply")
    site.close_by_release("ann")
    assert state(site, "votes") == before
