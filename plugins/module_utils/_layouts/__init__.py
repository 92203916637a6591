# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Layouts: how memories lie in an engine. Data only; a layout never opens a connection.

PRIVATE to the collection.
"""
from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field, replace

from .._errors import InvalidInput

if t.TYPE_CHECKING:
    from .tables import Namespaces


@dataclass(frozen=True)
class Layout:
    """A descriptor. ``capabilities`` are the words that ``Store.capabilities()`` intersects with the engine's."""

    name: str
    capabilities: frozenset[str] = field(default_factory=frozenset)
    engines: tuple[str, ...] = ()  # those that can run it; empty: all

    def namespace_rule(self) -> Namespaces | None:
        """How an application's own rows tell of which namespace they are; None where they do not."""
        return None


def layouts() -> dict[str, Layout]:
    """Every layout that has a name of its own."""
    from .agno import AGNO
    from .google_adk import GOOGLE_ADK
    from .keyspace import KEYSPACE
    from .langgraph_checkpoint import LANGGRAPH_CHECKPOINT
    from .langgraph_store import LANGGRAPH_STORE
    from .mcp_memory import MCP_MEMORY
    from .mem0 import MEM0
    from .mem0_history import MEM0_HISTORY
    from .native import NATIVE
    from .openai_agents import OPENAI_AGENTS
    from .python import PYTHON

    known = (
        NATIVE, KEYSPACE, LANGGRAPH_STORE, LANGGRAPH_CHECKPOINT, MEM0, MEM0_HISTORY, OPENAI_AGENTS, GOOGLE_ADK, AGNO,
        MCP_MEMORY, PYTHON,
    )  # fmt: skip
    return {one.name: one for one in known}


def layout(name: str, tables: t.Any = None) -> Layout:
    """The layout called ``name``; ``tables``: what memory_store says of them. Errors: InvalidInput that lists the known
    ones, or says what is wrong with the tables."""
    from .native import NATIVE

    if name == NATIVE.name and not tables:
        return NATIVE  # without the other files, which take longer to load than a store to open
    from .custom import CUSTOM, described_by, renamed

    known = layouts()
    if name == CUSTOM:
        return described_by(tables)
    if name not in known:
        names = ", ".join([*known, CUSTOM])
        raise InvalidInput(f"There is no layout {name!r}.", f"set memory_store.layout to one of: {names}")
    return renamed(known[name], tables) if tables else known[name]


def makes_its_own(store_params: t.Mapping[str, t.Any]) -> bool:
    """Whether only the application itself makes the tables that memory_store names."""
    from .tables import TablesLayout

    return isinstance(layout(store_params.get("layout") or "native", store_params.get("tables")), TablesLayout)


def scratch_layout(name: str) -> Layout:
    """For a rehearsal with records of that layout: the rows as they are, and no more abilities than theirs."""
    from .langgraph_store import LANGGRAPH_STORE

    known = layouts()
    return replace(known["native"], name=name, capabilities=known.get(name, LANGGRAPH_STORE).capabilities)


def counted_once(store_params: t.Mapping[str, t.Any], namespaces: t.Iterable[str]) -> list[str]:
    """Of these namespaces those whose counts may be added: where some lie in others, no record is counted twice."""
    from .._table_records import outermost

    name, tables = store_params.get("layout") or "native", store_params.get("tables")
    if name == "custom" and not tables:
        return sorted(namespaces)
    rule = layout(name, tables).namespace_rule()
    return sorted(namespaces) if rule is None else outermost(rule, namespaces)


def seals(name: str) -> bool:
    """Whether the records of that layout are sealed by the keyring; one that is not known is believed to be."""
    return name == "native" or name not in (*layouts(), "custom")


def written_once(name: str) -> t.Callable[[str], bool]:
    """Whether the application never changes the record of a key of that layout, so that whoever did was not it."""
    from .tables import TablesLayout

    known = layouts().get(name)
    pattern = re.compile(known.once) if isinstance(known, TablesLayout) and known.once else None
    return lambda key: pattern is not None and pattern.fullmatch(key) is not None


def nameless(name: str) -> str | None:
    """What the keys of that layout's records begin with that stand for what cannot be read as any record, if it has
    such: of what they were, snapshots have the copies under names that nobody can tell. Where a slash follows, it was
    the record of that key, which is there all the same."""
    from .lines import NAMELESS, LinesLayout

    return NAMELESS if isinstance(layouts().get(name), LinesLayout) else None


ALL_CAPABILITIES: t.Final = (
    "checksum",  # a record's stored form can be checked without keys
    "encryption",  # payloads are sealed by the keyring
    "expiry",
    "fence-reads",  # applications that use Memory read nothing while quarantined
    "fence-raw-reads",  # so does any other client
    "fence-writes",  # the store itself refuses writes, whoever writes
    "generations",
    "outside-fence",  # a quarantine may rest on a fence that the operator names, and the store does not have
    "log",
    "search",  # a benchmark can ask with words: our own search, or the framework's (memory_search)
    "sequence",
    "tombstones",
    "write-lock",
    "whole-store",  # all namespaces can be fenced at once, for a failover of the server to its replica
)
