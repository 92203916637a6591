# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Names and payloads of records of other applications' tables: whatever the values, they come back."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import InvalidInput, RecordCorrupt
from ansible_collections.memops.agent_memory.plugins.module_utils._layouts import layout, layouts, seals
from ansible_collections.memops.agent_memory.plugins.module_utils._layouts.tables import Namespaces, Root
from ansible_collections.memops.agent_memory.plugins.module_utils._table_records import (
    header,
    name_of,
    namespace_columns,
    namespace_fields,
    namespace_of,
    namespace_of_fields,
    overlap,
    pack,
    parse_name,
    unpack,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._table_values import sqlite_cell, sqlite_value

TREE = Root("store", Namespaces("prefix", ("prefix",)), ("key",))
USERS = Namespaces("columns", ("app", "user"))
SESSIONS = (
    Root("sessions", USERS, ("id",), label="session"),
    Root("messages", USERS, ("id", "number"), numbers=frozenset(("number",)), label="message"),
)
FIELDS = Namespaces("json", ("payload",), fields=("user_id", "agent_id", "run_id"))
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
some = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)


@given(some, texts, texts)
def test_a_name_of_a_tree_leads_back_to_the_row(namespace, below, key):
    prefix = f"{namespace}.{below}" if below else namespace
    name = name_of(TREE, namespace, {"prefix": prefix, "key": key})
    assert name and parse_name((TREE,), namespace, name).columns == {"prefix": prefix, "key": key}


@given(st.lists(st.tuples(texts, texts), unique=True, max_size=20))
def test_two_rows_of_a_tree_have_two_names(rows):
    names = {name_of(TREE, "a", {"prefix": f"a.{below}" if below else "a", "key": key}) for below, key in rows}
    assert len(names) == len(rows)


@given(texts, texts, texts, st.integers(0, 10**18))
def test_a_name_says_its_root_and_numbers_are_in_order(app, user, key, number):
    namespace = namespace_of(USERS, {"app": app, "user": user})
    columns = {"app": app, "user": user, "id": key, "number": str(number)}
    name = name_of(SESSIONS[1], namespace, columns)
    found = parse_name(SESSIONS, namespace, name)
    assert (found.root, found.columns) == (SESSIONS[1], columns)
    assert name < name_of(SESSIONS[1], namespace, {**columns, "number": str(number + 1)})
    assert namespace_columns(USERS, namespace) == {"app": app, "user": user}


@pytest.mark.parametrize("name", ["", "a/b/c", "a%2fb", "x/", "%"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InvalidInput):
        parse_name((TREE,), "agent", name if name != "x/" else "x/y/z")


@given(st.dictionaries(st.sampled_from(FIELDS.fields), texts, min_size=1))
def test_a_namespace_of_json_fields_comes_back(fields):
    assert namespace_fields(FIELDS, namespace_of_fields(FIELDS, fields)) == fields


@pytest.mark.parametrize("namespace", ["", "ann", "other=1", "user_id=a&user_id=b", "agent_id=x&user_id=a"])
def test_another_spelling_of_a_namespace_is_refused(namespace):
    with pytest.raises(InvalidInput):
        namespace_fields(FIELDS, namespace)


def test_namespaces_that_share_rows_are_known():
    tree = TREE.namespace
    assert overlap(tree, "a", "a.b") and overlap(tree, "a.b", "a") and not overlap(tree, "foo", "foobar")
    assert overlap(FIELDS, "user_id=a", "agent_id=b") and not overlap(FIELDS, "user_id=a", "user_id=b&agent_id=c")
    assert not overlap(USERS, "a/b", "a/c")


cells = st.one_of(st.none(), st.binary(max_size=20))


@given(st.lists(st.tuples(cells, cells), max_size=4), st.tuples(cells, cells))
def test_a_payload_comes_back_and_what_is_cut_is_refused(rows, root):
    columns = (("a", "text"), ("b", "bytea"))
    tables = [("root", columns)] + ([("beside", columns)] if rows else [])
    payload = pack(header("postgresql", tables), [[root], rows] if rows else [[root]])
    engine, found = unpack(payload)
    assert engine == "postgresql" and [one.name for one in found] == [name for name, _c in tables]
    assert found[0].columns == columns and found[0].rows == (root,)
    assert not rows or found[1].rows == tuple(rows)
    for broken in (payload[:-1], payload + b"\0", payload[3:]):
        with pytest.raises(RecordCorrupt):
            unpack(broken)


@given(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), texts, st.binary()))
def test_a_value_of_sqlite_keeps_its_storage_class(value):
    back = sqlite_value(sqlite_cell(value))
    assert type(back) is type(value) and back == value


def test_only_the_collections_own_layout_seals():
    assert [name for name in layouts() if seals(name)] == ["native"]
    assert seals("unheard") and layout("langgraph_store").tables("postgresql")[0].name == "store"
