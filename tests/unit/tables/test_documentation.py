# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""docs/layouts.md and tables_sqlite.md say what the code says, and the example of tables that nobody knows runs."""

from __future__ import annotations

import contextlib
import pathlib
import re
import sqlite3

import pytest
import yaml

from ansible_collections.memops.agent_memory.plugins.module_utils._ansible import LAYOUTS
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.tables_sqlite import CAPABILITIES
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import InvalidInput, StoreMissing
from ansible_collections.memops.agent_memory.plugins.module_utils._layouts import ALL_CAPABILITIES, layout, layouts
from ansible_collections.memops.agent_memory.plugins.module_utils._layouts.custom import CUSTOM
from ansible_collections.memops.agent_memory.plugins.module_utils._layouts.tables import TablesLayout
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from ansible_collections.memops.agent_memory.plugins.module_utils._store import ENGINES, open_store
from tests.unit.tables.tables_help import TablesSite

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "layouts.md"
SIMPLE = [{"name": "memories", "namespace": {"columns": ["tenant"]}, "key": ["id"]}]


def example():
    found = re.search(r"<!-- tested: begin -->\n```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    return yaml.safe_load(found[1])["memory_store"]["tables"]


def table():
    """The table of layouts as the code has it."""
    known = {**layouts(), CUSTOM: layout(CUSTOM, example())}
    assert tuple(known) == LAYOUTS
    named = [one for one in ALL_CAPABILITIES if any(one in other.capabilities for other in known.values())]
    lines = [f"| layout | engines | {' | '.join(named)} |", "|---" * (len(named) + 2) + "|"]
    for name, one in known.items():
        cells = ["yes" if word in one.capabilities else "no" for word in named]
        lines.append(f"| {name} | {', '.join(one.engines or ENGINES)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_table_of_layouts_is_what_the_code_has():
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(r"from the code: begin -->\n(.*?)\n?<!-- end -->", page, re.S)
    assert found[1] == table(), f"put this between the marks in docs/layouts.md:\n{table()}"


def test_the_table_of_capabilities_in_sqlite_is_that_of_the_code():
    page, head, lines = (PAGE.parent / "tables_sqlite.md").read_text(encoding="utf-8"), None, []
    for line in page.partition("## What each can do\n")[2].splitlines():
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if head is None:
            head = cells[1:]
        elif set(cells[0]) != {"-"}:
            lines.append(cells)
    here = [one for one in layouts().values() if isinstance(one, TablesLayout) and "sqlite" in one.engines]
    assert head == [one.name for one in here]
    said = {cells[0]: [cell == "yes" for cell in cells[1:]] for cells in lines}
    assert said == {word: [word in CAPABILITIES & one.capabilities for one in here] for word in ALL_CAPABILITIES}


@pytest.fixture
def site(tmp_path, postgresql_server):
    one = TablesSite(tmp_path, postgresql_server, CUSTOM, tables=example())
    one.sql("CREATE TABLE memories (tenant varchar(20), agent uuid, id bigint GENERATED ALWAYS AS IDENTITY, "
            "content text, created_at timestamptz DEFAULT now(), changed bigint, meta jsonb, "
            "size int GENERATED ALWAYS AS (length(content)) STORED, price numeric, tags text[], "
            "PRIMARY KEY (tenant, agent, id))")  # fmt: skip
    one.sql("CREATE TABLE memory_vectors (tenant varchar(20), agent uuid, memory bigint, chunk int, embedding "
            "vector(3), PRIMARY KEY (tenant, agent, memory, chunk), "
            "FOREIGN KEY (tenant, agent, memory) REFERENCES memories)")  # fmt: skip
    one.sql("ALTER TABLE memories OWNER TO agent; ALTER TABLE memory_vectors OWNER TO agent")
    one.tables = ("memories", "memory_vectors")
    one.sql("INSERT INTO memories (tenant, agent, content, changed, meta, price, tags) SELECT 't/' || n % 3, "
            "'6d656d6f-0000-4000-8000-000000000000', 'text ' || n, 1, '{\"valid_until\": \"2090-01-01\"}', n / 7.0, "
            "ARRAY['a', NULL, 'b'] FROM generate_series(1, 60) n")  # fmt: skip
    one.sql("INSERT INTO memory_vectors SELECT tenant, agent, id, c, ARRAY[id, c, 0.1]::vector FROM memories, "
            "generate_series(1, 2) c")  # fmt: skip
    yield one
    one.wipe()


def test_the_worked_example_runs(site):
    namespace = "t%2F1/6d656d6f-0000-4000-8000-000000000000"
    before, catalogue = site.dump(tables=site.tables), site.catalogue()
    with site.open() as store, store.reader() as reader:
        assert len(reader.namespaces()) == 3 and reader.count(namespace) == 20
        row = next(reader.scan(namespace))[0]
        assert row[0] == "0000000000000000001" and row[4] == 1_000_000 and row[5] == 3786998400_000_000  # 2090-01-02
    site.backup()
    for strategy in ("soft", "hard"):
        started = now_us()
        site.sql("UPDATE memories SET content = 'garbage', tags = NULL WHERE id = 4")
        site.sql("DELETE FROM memory_vectors WHERE memory IN (7, 10); DELETE FROM memories WHERE id = 10")
        site.rebuild(namespace, Window(onset=started), strategy)
        assert site.dump(tables=site.tables) == before and site.catalogue() == catalogue
        site.close_incident(namespace)


def change(**more):
    return [{**SIMPLE[0], **more}]


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        (None, r"must be a list of tables"),
        (change(name=""), r"tables\[0\]\.name .*must be the name of a table"),
        (change(namespace={"columns": ["a"], "prefix": "b"}), r"namespace .*exactly one of columns, prefix and json"),
        (change(namespace={"json": "meta"}), r"fields .*must be a list of columns"),
        (change(nmae="x"), r"it has 'nmae', which is none of beside, created"),
        (change(numbers=["other"]), r"numbers .*no part of the key"),
        (change(expires={"column": "x", "form": "weeks"}), r"expires .*form one of timestamp, seconds"),
        (change(beside=[{"name": "v", "parent": []}]), r"beside\[0\]\.parent .*mapping of its columns"),
        ([SIMPLE[0], {**SIMPLE[0]}], r"label of its own"),
    ],
)  # fmt: skip
def test_a_wrong_description_says_where_it_is_wrong(tables, said):
    with pytest.raises(InvalidInput, match=said):
        layout(CUSTOM, tables)


def test_what_the_database_does_not_have_is_named(site):
    for more, kind, said in (
        ({"name": "memory"}, StoreMissing, "no table memory in schema"),
        ({"key": ["number"]}, InvalidInput, "has no column number; it has tenant, agent, id"),
        ({"namespace": {"json": "content", "fields": ["a"]}}, InvalidInput, "content of memories is text, not JSON"),
        ({"payload": ["body"]}, InvalidInput, "has no column body"),
    ):
        tables = [{**example()[0], **more, "numbers": []}]
        with pytest.raises(kind, match=said):
            open_store({**site.store, "tables": tables})
    store = open_store({**site.store, "tables": [{**example()[0], "key": ["content"], "numbers": []}]})
    with contextlib.closing(store), store.reader() as reader:
        with pytest.raises(InvalidInput, match="Nothing makes agent and content and tenant unique"):
            next(reader.scan("any/body"))
    with pytest.raises(StoreMissing, match=f"but there is one in {site.schema}"):
        open_store({**site.store, "table_schema": "pg_catalog"})


def test_a_namespace_that_has_several_names_is_refused(site):
    site.sql("CREATE EXTENSION IF NOT EXISTS citext")
    site.sql("CREATE TABLE folded (agent citext, id text, PRIMARY KEY (agent, id))")
    tables = [{"name": "folded", "namespace": {"columns": ["agent"]}, "key": ["id"]}]
    try:
        with pytest.raises(InvalidInput, match=r"column agent of folded \(.*citext\) is compared without"):
            open_store({**site.store, "tables": tables})
    finally:
        site.sql("DROP TABLE folded")


def test_a_namespace_that_has_several_names_is_refused_in_sqlite(tmp_path):
    for folds in (True, False):
        path = tmp_path / f"{folds}.db"
        with contextlib.closing(sqlite3.connect(path)) as con:
            how = "COLLATE NOCASE" if folds else ""
            con.execute(f"CREATE TABLE m (agent TEXT {how}, id TEXT, PRIMARY KEY (agent, id))")
        params = {
            "engine": "sqlite", "layout": "custom", "path": str(path), "name": "memory",
            "tables": [{"name": "m", "namespace": {"columns": ["agent"]}, "key": ["id"]}],
        }  # fmt: skip
        with contextlib.ExitStack() as stack:
            if folds:
                stack.enter_context(pytest.raises(InvalidInput, match=r"column agent of m .*without regard to case"))
            open_store(params).close()


def test_a_known_layout_takes_other_names_of_its_tables():
    found = layout("langgraph_store", {"store": "items", "store_vectors": "item_vectors"})
    root = found.tables("postgresql")[0]
    assert (root.name, root.companions[0].name) == ("items", "item_vectors")
    with pytest.raises(InvalidInput, match="no table 'shop'"):
        layout("langgraph_store", {"shop": "items"})
    with pytest.raises(InvalidInput, match="takes no memory_store"):
        layout("native", {"a": "b"})
