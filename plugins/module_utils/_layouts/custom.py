# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Tables that nobody here has ever seen, as the inventory describes them (``memory_store.tables``).

PRIVATE to the collection. Whether the database agrees, the engine says when it opens the store.
"""
from __future__ import annotations

import dataclasses
import typing as t

from .._errors import InvalidInput
from . import Layout
from .tables import FORMS, Companion, Moment, Namespaces, Root, TablesLayout, described

CUSTOM: t.Final = "custom"
ENGINES: t.Final = ("postgresql", "sqlite")
EXAMPLE: t.Final = "write it like: [{name: memories, namespace: {columns: [user_id]}, key: [id], payload: [content]}]"
_TABLE: t.Final = frozenset(
    (
        "name", "label", "namespace", "key", "numbers", "created", "updated", "expires", "payload", "json", "vectors",
        "beside",
    )
)  # fmt: skip
_BESIDE: t.Final = frozenset(("name", "parent", "key", "optional", "vectors", "json"))


def described_by(tables: t.Any) -> TablesLayout:
    """Errors: InvalidInput that says where the description is wrong."""
    if not isinstance(tables, list) or not tables:
        raise _wrong("memory_store.tables", "it must be a list of tables")
    roots = [_root(one, f"memory_store.tables[{n}]", len(tables) > 1) for n, one in enumerate(tables)]
    if len({root.label for root in roots}) < len(roots):
        raise _wrong("memory_store.tables", "each of several tables needs a label of its own")
    first = roots[0].namespace
    for root in roots[1:]:
        if (root.namespace.kind, len(root.namespace.columns)) != (first.kind, len(first.columns)):
            raise _wrong("memory_store.tables", "the namespace must be found alike in all tables")
    return described(CUSTOM, *roots, engines=ENGINES)


def renamed(layout: Layout, names: t.Any) -> Layout:
    """A known layout whose tables have other names there: {name: other name}. Errors: InvalidInput."""
    if not isinstance(layout, TablesLayout):
        raise InvalidInput(f"The layout {layout.name} takes no memory_store.tables.", "leave it out")
    known = {one.name for roots in (layout.roots, *layout.variants.values()) for root in roots for one in _all(root)}
    if not isinstance(names, dict) or not all(isinstance(new, str) and new for new in names.values()):
        raise InvalidInput(
            "memory_store.tables is not a mapping of names.", f"write it as {{{sorted(known)[0]}: other_name}}"
        )
    for name in names:
        if name not in known:
            raise InvalidInput(
                f"The layout {layout.name} has no table {name!r:.80}.", f"rename one of: {', '.join(sorted(known))}"
            )
    variants = {engine: _renamed(roots, names) for engine, roots in layout.variants.items()}
    return dataclasses.replace(layout, roots=_renamed(layout.roots, names), variants=variants)


def _all(root: Root) -> tuple[Root | Companion, ...]:
    return (root, *root.companions)


def _renamed(roots: tuple[Root, ...], names: t.Mapping[str, str]) -> tuple[Root, ...]:
    return tuple(
        dataclasses.replace(
            root,
            name=names.get(root.name, root.name),
            companions=tuple(
                dataclasses.replace(one, name=names.get(one.name, one.name)) for one in root.companions
            ),
        )
        for root in roots
    )  # fmt: skip


def _root(said: t.Any, where: str, several: bool) -> Root:
    _mapping(said, where, _TABLE)
    label = said.get("label", said.get("name") if several else "")
    if not isinstance(label, str):
        raise _wrong(f"{where}.label", "it must be a text")
    key = _names(said, "key", where, needed=True)
    numbers = _names(said, "numbers", where)
    if set(numbers) - set(key):
        raise _wrong(f"{where}.numbers", "it names columns that are no part of the key")
    beside = said.get("beside") or []
    if not isinstance(beside, list):
        raise _wrong(f"{where}.beside", "it must be a list of tables")
    return Root(
        name=_name(said, where),
        namespace=_namespaces(said.get("namespace"), f"{where}.namespace"),
        key=key,
        numbers=frozenset(numbers),
        label=label,
        created=_moment(said.get("created"), f"{where}.created"),
        updated=_moment(said.get("updated"), f"{where}.updated"),
        expires=_moment(said.get("expires"), f"{where}.expires"),
        payload=_names(said, "payload", where),
        json=_names(said, "json", where),
        vectors=_names(said, "vectors", where),
        companions=tuple(_beside(one, f"{where}.beside[{n}]") for n, one in enumerate(beside)),
    )


def _beside(said: t.Any, where: str) -> Companion:
    _mapping(said, where, _BESIDE)
    parent = said.get("parent")
    if not isinstance(parent, dict) or not parent or not all(isinstance(x, str) for p in parent.items() for x in p):
        raise _wrong(f"{where}.parent", "it must be a mapping of its columns to those of its parent")
    return Companion(
        name=_name(said, where),
        parent=tuple(parent.items()),
        key=_names(said, "key", where),
        optional=bool(said.get("optional", False)),
        vectors=_names(said, "vectors", where),
        json=_names(said, "json", where),
    )


def _namespaces(said: t.Any, where: str) -> Namespaces:
    if not isinstance(said, dict):
        raise _wrong(where, "it must say how a namespace is found")
    kinds = [kind for kind in ("columns", "prefix", "json") if kind in said]
    if len(kinds) != 1:
        raise _wrong(where, "it must have exactly one of columns, prefix and json")
    kind = kinds[0]
    _mapping(said, where, frozenset((kind, *{"prefix": ("separator",), "json": ("fields",)}.get(kind, ()))))
    if kind == "columns":
        return Namespaces(kind, _names(said, "columns", where, needed=True))
    if not isinstance(said[kind], str) or not said[kind]:
        raise _wrong(f"{where}.{kind}", "it must be the name of a column")
    if kind == "json":
        return Namespaces(kind, (said[kind],), fields=_names(said, "fields", where, needed=True))
    separator = said.get("separator", ".")
    if not isinstance(separator, str) or not separator:
        raise _wrong(f"{where}.separator", "it must be a text such as a dot")
    return Namespaces(kind, (said[kind],), separator=separator)


def _moment(said: t.Any, where: str) -> Moment | None:
    if said is None:
        return None
    if isinstance(said, str) and said:
        return Moment(said)
    _mapping(said, where, frozenset(("column", "form", "json")))
    form, field = said.get("form", "timestamp"), said.get("json")
    if not isinstance(said.get("column"), str) or not said["column"] or form not in FORMS:
        raise _wrong(where, f"it must be a column, and its form one of {', '.join(FORMS)}")
    if field is not None and (not isinstance(field, str) or form not in ("text", "date")):
        raise _wrong(where, "a time inside JSON has the form text or date")
    return Moment(said["column"], form, field)


def _mapping(said: t.Any, where: str, known: frozenset[str]) -> None:
    if not isinstance(said, dict):
        raise _wrong(where, "it must be a mapping")
    for name in said:
        if name not in known:
            raise _wrong(where, f"it has {name!r:.40}, which is none of {', '.join(sorted(known))}")


def _name(said: t.Mapping[str, t.Any], where: str) -> str:
    name = said.get("name")
    if not isinstance(name, str) or not name:
        raise _wrong(f"{where}.name", "it must be the name of a table")
    return name


def _names(said: t.Mapping[str, t.Any], what: str, where: str, needed: bool = False) -> tuple[str, ...]:
    found = said.get(what) or []
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found) or (needed and not found):
        raise _wrong(f"{where}.{what}", "it must be a list of columns")
    return tuple(found)


def _wrong(where: str, why: str) -> InvalidInput:
    return InvalidInput(f"{where} does not describe tables: {why}.", EXAMPLE)
