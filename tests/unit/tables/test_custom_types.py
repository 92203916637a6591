# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Columns of every kind of type in an application's own tables: what is rebuilt and restored is the same to the bit."""
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.unit.operations.runbook import attempt
from tests.unit.tables.test_custom_tables import CustomSite

TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s 100% fine');
CREATE DOMAIN label AS text CHECK (value <> 'bad');
CREATE DOMAIN moods AS mood[];
CREATE TYPE spot AS (x numeric, m mood, l label[]);
CREATE DOMAIN place AS spot;
CREATE TYPE span AS RANGE (subtype = int8);"""
#: column → type, and a value of it; NOT NULL where the fence's proof has to find a value of its own
COLUMNS = {
    "feeling": ("mood NOT NULL", "'it''s 100%% fine'"),
    "feelings": ("mood[]", "'[2:4]={sad,ok,NULL}'"),
    "said": ("label NOT NULL", "'fine'"),
    "more": ("moods", "'{ok,sad}'"),
    "spot": ("spot NOT NULL", "(1.50, 'ok', '{a,NULL}')::spot"),
    "spots": ("spot[]", "ARRAY[('NaN', NULL, '{}')::spot, NULL]"),
    "place": ("place", "(2, 'sad', NULL)::place"),
    "during": ("tstzrange NOT NULL", "'[2000-01-01 00:00+00, infinity)'"),
    "parts": ("nummultirange NOT NULL", "'{[1.0,2),(3,4]}'"),
    "spans": ("span[] NOT NULL", "ARRAY['[1,5)'::span]"),
    "twice": ('text GENERATED ALWAYS AS ("Key" || text) STORED', None),
    "number": ("bigint GENERATED ALWAYS AS IDENTITY", None),
    "document": ("jsonb", """'{"n": 1e400, "a": [1.10, "NaN"]}'"""),
    "plain": ("json", """'{"a":  1, "a": 2}'"""),
    "raw": ("bytea NOT NULL", "'\\x00ff25'"),
    "until": ("timestamptz", "'infinity'"),
    "day": ("date", "'-infinity'"),
    "amount": ("numeric", "'NaN'"),
    "most": ("numeric", "'-Infinity'"),
    "zero": ("float8", "'-0'"),
    "lasts": ("interval NOT NULL", "'1 mon -3 days'"),
    "host": ("inet NOT NULL", "'10.0.0.1/8'"),
    "list": ("int[] NOT NULL", "'[0:1]={1,2}'"),
    "long": ("text NOT NULL CHECK (length(long) > 3)", "'long enough'"),
    "pairs": ("hstore NOT NULL", "'a=>1, b=>NULL'"),
    "name": ("citext", "'Ab'"),
}
TABLE = (
    'CREATE TABLE "Memories" (tenant text NOT NULL, "Key" text NOT NULL, text text, changed timestamptz DEFAULT now(), '
    + ", ".join(f"{name} {kind}" for name, (kind, _value) in COLUMNS.items())
    + ', PRIMARY KEY (tenant, "Key"));'
)
GIVEN = {name: value for name, (_kind, value) in COLUMNS.items() if value is not None}
FILL = (
    f'INSERT INTO "Memories" (tenant, "Key", text, {", ".join(GIVEN)}) '
    f"SELECT who, 'k' || n, 'x', {', '.join(GIVEN.values())} "
    "FROM unnest(ARRAY['ann', 'bob']) who, generate_series(1, 6) n;"
).replace("%%", "%")


@pytest.fixture
def site(tmp_path, postgresql_server):
    with postgresql_server.connect() as con:
        for name in ("hstore", "citext"):
            con.execute(f"CREATE EXTENSION IF NOT EXISTS {name}")
    one = CustomSite(tmp_path, postgresql_server, TYPES + TABLE + FILL)
    yield one
    one.wipe()


def test_values_of_every_type_come_back_to_the_bit(site):
    before = site.dump("tenant = 'ann'", ['"Memories"'])
    site.backup()
    site.application.execute(
        "UPDATE \"Memories\" SET text = 'wrong', feeling = 'sad', amount = 1 WHERE \"Key\" = 'k1' AND tenant = 'ann'; "
        "DELETE FROM \"Memories\" WHERE \"Key\" = 'k2' AND tenant = 'ann'; "
        "UPDATE \"Memories\" SET number = DEFAULT WHERE \"Key\" = 'k3' AND tenant = 'ann'"
    )
    done = site.rebuild("ann", Window(keys=frozenset(["k1", "k3"])), "hard", "restore")
    assert not any("not tried" in line for line in done["isolate"]["proof"]["detail"])
    assert site.dump("tenant = 'ann'", ['"Memories"']) == before
    site.close_incident("ann")
    # the application makes its schema anew: its types have other numbers now
    remade = f'DROP TABLE "Memories"; DROP TYPE mood, label, spot, span CASCADE; {TYPES} {TABLE}'
    one = FILL.replace("'ann', 'bob'", "'ann'").replace("(1, 6)", "(1, 1)")
    site.application.execute(f"{remade} {one}")
    site.rebuild("ann", Window(keys=frozenset(["k1"])), "soft", "restore", until="apply")
    assert site.dump("true", ['"Memories"']) == before


def test_an_identity_that_comes_first_and_rules_of_the_application_stop_no_proof(tmp_path, postgresql_server):
    made = (
        'CREATE TABLE "Memories" (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant text NOT NULL, "Key" text '
        "CHECK (length(\"Key\") = 2), text text, changed timestamptz, UNIQUE (tenant, \"Key\"));"
        "INSERT INTO \"Memories\" (tenant, \"Key\", text) SELECT 'ann', 'k' || n, 'x' FROM generate_series(1, 3) n;"
    )
    site = CustomSite(tmp_path, postgresql_server, made)
    try:
        proof = site.step("isolate", attempt(), "ann")["proof"]
        assert proof["writes_refused"] and proof["reads_refused"]
        assert "raw INSERT on Memories: not tried, as no row is known that it takes" in proof["detail"]
        assert any(line.startswith("raw UPDATE on Memories as agent: refused") for line in proof["detail"])
        # what docs/postgresql.md says of migrations while a fence stands
        said = site.refused('ALTER TABLE "Memories" ALTER COLUMN tenant TYPE varchar(99)')
        assert "cannot alter type of a column used in a trigger definition" in said and "memops_fence_insert" in said
        assert "memops_read" in site.refused('ALTER TABLE "Memories" DROP COLUMN tenant')
    finally:
        site.close_by_release("ann")
        site.wipe()
