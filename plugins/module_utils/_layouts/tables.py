# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Memories that lie in tables of another application: what a descriptor of such tables says. Data only.

PRIVATE to the collection. A record is one row of a *root* table with the rows of its *companion* tables that belong to
it (vectors, blobs, events). A layout may have several root tables; what others refer to comes first. Which types the
columns have, and which more there are, the engine asks the database itself.
"""
from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from . import Layout

WHOLE: t.Final = "all"  # the name of a namespace that is all rows
FORMS: t.Final = ("timestamp", "seconds", "milliseconds", "text", "date")


@dataclass(frozen=True)
class Namespaces:
    """How the rows of a namespace are found.

    ``columns``: they equal it (several: the namespace is their values, escaped and joined by ``/``).
    ``prefix``: one column equals it, or begins with it and ``separator``: a namespace holds those below it.
    ``json``: of one JSON column some ``fields`` have these values (``user_id=ann&agent_id=7``, any of them in their
    order); listed is each value of the first field that a row has.
    ``whole``: all rows are one namespace, which is called ``all`` (in SQLite alone).
    """

    kind: str  # columns | prefix | json | whole
    columns: tuple[str, ...]
    separator: str = "."
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Moment:
    """Where a record has a time. Forms: ``timestamp`` (the engine's own type, or SQLite's text; without a zone UTC),
    ``seconds`` and ``milliseconds`` since 1970 as numbers, ``text`` (ISO 8601), ``date`` (YYYY-MM-DD, over at its
    end); in SQLite also ``uuid6``, an identifier that holds its time. ``json``: the field of the column, when the time
    lies inside a JSON value. ``instead`` (in SQLite alone): the column that has it where this one has none."""

    column: str
    form: str = "timestamp"
    json: str | None = None
    instead: str | None = None


@dataclass(frozen=True)
class Companion:
    """A table whose rows belong to a row of the root: ``parent`` pairs its columns with the root's (own, root's)."""

    name: str
    parent: tuple[tuple[str, str], ...]
    key: tuple[str, ...]  # its further key columns, by which the rows of one record are in order
    optional: bool = False  # it need not be there
    vectors: tuple[str, ...] = ()  # columns that hold embeddings
    json: tuple[str, ...] = ()  # columns that hold JSON


@dataclass(frozen=True)
class Sealed:
    """A column whose values the application itself may have encrypted. ``cipher``: one of _application_ciphers'.
    ``kind``: the column that says whether it did; where nothing is encrypted (``inline``), the JSON field of ``column``
    that should have been."""

    cipher: str
    column: str
    kind: str = ""


@dataclass(frozen=True)
class Root:
    """A table each of whose rows is a record. ``key``: its key columns that name a record inside its namespace."""

    name: str
    namespace: Namespaces
    key: tuple[str, ...]
    numbers: frozenset[str] = frozenset()  # key columns that are whole numbers: records are in their order
    label: str = ""  # what keys of its records begin with, where a layout has several roots; "" is for one alone
    created: Moment | None = None
    updated: Moment | None = None
    expires: Moment | None = None
    payload: tuple[str, ...] = ()  # the columns that hold what is remembered
    remembered: str = ""  # the field of the first one's JSON value that alone is what the application calls the memory
    json: tuple[str, ...] = ()  # those that hold JSON
    vectors: tuple[str, ...] = ()
    companions: tuple[Companion, ...] = ()
    optional: bool = False
    sealed: Sealed | None = None


@dataclass(frozen=True)
class TablesLayout(Layout):
    """``roots`` of every engine, or of one of them (``variants``), whose tables have other names there."""

    roots: tuple[Root, ...] = ()
    variants: t.Mapping[str, tuple[Root, ...]] = field(default_factory=dict)
    #: words for the engine's findings that only this framework has: see docs/layouts.md
    findings: frozenset[str] = frozenset()
    search: str = ""  # how the framework's own search is asked: one of _search_child.ADAPTERS
    once: str = ""  # a pattern of keys whose rows the framework writes once: what is other there, it did not change

    def namespace_rule(self) -> Namespaces:
        return self.roots[0].namespace  # alike in all roots

    def tables(self, engine: str) -> tuple[Root, ...]:
        return self.variants.get(engine, self.roots)


def described(
    name: str,
    *roots: Root,
    engines: tuple[str, ...],
    variants: t.Mapping[str, tuple[Root, ...]] | None = None,
    findings: t.Iterable[str] = (),
    search: str = "",
    once: str = "",
) -> TablesLayout:
    """A layout of these tables, with the capabilities that they give. Namespaces are found alike in all roots."""
    capabilities = {"fence-reads", "fence-raw-reads", "fence-writes", "generations"}
    if any(root.expires is not None for root in roots):
        capabilities.add("expiry")
    if search:
        capabilities.add("search")
    words = frozenset(capabilities)
    return TablesLayout(name, words, engines, roots, variants or {}, frozenset(findings), search, once)
