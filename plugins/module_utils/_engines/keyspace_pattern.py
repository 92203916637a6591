# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Which keys of a server belong to which namespace: ``memory_store.pattern``, and the names of keys as text.

PRIVATE to the collection.
"""
from __future__ import annotations

import re
import typing as t

from .._errors import InvalidInput
from .valkey_rules import plain
from .valkey_values import Names, written

PLACEHOLDER = "{namespace}"
EXAMPLE = "write it like mem:{namespace}:*"
PROBE = "memops-probe"  # the name under a namespace with which a fence is proven; nothing is ever written there
ODD = re.compile("[\uf700-\uf7ff]")
NO_NAME = "\uf700"  # the key whose name ends with the namespace


def text_of(raw: bytes) -> str:
    """The name of a key as text. Bytes that are no UTF-8 become characters of a private range, and so do the bytes of
    such characters themselves: ``raw_of`` always gives the same bytes back."""
    if not raw:
        return NO_NAME
    try:
        text = raw.decode()
        if not ODD.search(text):
            return text
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "surrogateescape")
    return "".join(
        chr(0xF700 + ord(c) - 0xDC00) if "\udc80" <= c <= "\udcff"
        else "".join(chr(0xF700 + byte) for byte in c.encode()) if ODD.match(c)
        else c
        for c in text
    )  # fmt: skip


def raw_of(text: str) -> bytes:
    """The inverse of ``text_of``. Errors: UnicodeEncodeError."""
    if text == NO_NAME:
        return b""
    if not ODD.search(text):
        return text.encode()
    return b"".join(bytes([ord(c) - 0xF700]) if ODD.match(c) else c.encode() for c in text)


class Pattern:
    """``before {namespace} between * after``. A namespace ends where ``between`` first follows."""

    def __init__(self, text: t.Any, prefix: str) -> None:
        """Errors: InvalidInput."""
        if not isinstance(text, str) or not text:
            raise InvalidInput("memory_store.pattern is not set, and the layout is keyspace.", EXAMPLE)

        def wrong(why: str) -> InvalidInput:
            return InvalidInput(f"memory_store.pattern is {text!r:.120}: {why}.", EXAMPLE)

        if text.count(PLACEHOLDER) != 1:
            raise wrong(f"it must contain {PLACEHOLDER} exactly once")
        self.text, self._own = text, f"{prefix}:"
        self._tagged = "{" in prefix  # then there may be staged keys that begin with another tag, on a Cluster
        self.before, _placeholder, rest = text.partition(PLACEHOLDER)
        if (self.before + rest).count("*") != 1:
            raise wrong("it must contain exactly one *, which stands for the name of a record")
        if "*" in self.before:
            raise wrong(f"the * must come behind {PLACEHOLDER}")
        if re.search(r"[?\[\]\\\s]", text):
            raise wrong("it may have no other wildcards, no backslash and no space")
        self.between, _star, self.after = rest.partition("*")
        if not self.between:
            raise wrong(f"there must be something between {PLACEHOLDER} and *, for example a colon")
        self._ends = (self.before.encode(), self.between.encode(), self.after.encode())

    def beginning(self, namespace: str) -> str:
        return f"{self.before}{namespace}{self.between}"

    def check(self, namespace: str) -> None:
        """Errors: InvalidInput for a namespace that the pattern cannot name, or that is the collection's own."""
        start = self.beginning(namespace)
        if start.startswith(self._own) or self._own.startswith(start):
            raise InvalidInput(
                f"The keys of namespace {namespace!r:.80} would be those of the collection itself ({self._own}*).",
                "name another namespace, or set memory_store.prefix to something that no application uses",
            )
        if self.namespace_of(f"{start}x{self.after}".encode()) != namespace:
            raise InvalidInput(
                f"The pattern {self.text} has no namespace {namespace!r:.80}: one ends before {self.between!r}.",
                "name one of those that the playbook memops.agent_memory.info lists",
            )

    def glob(self, namespace: str | None = None) -> str:
        """For SCAN MATCH: the keys of a namespace, or of all."""
        name = "*" if namespace is None else plain(namespace)
        return f"{plain(self.before)}{name}{plain(self.between)}*{plain(self.after)}"

    def namespace_of(self, raw: bytes) -> str | None:
        """Whose key it is."""
        before, between, after = self._ends
        end = raw.find(between, len(before))
        if not raw.startswith(before) or end <= len(before) or self._collections(raw):
            return None
        if not raw.endswith(after) or len(raw) < end + len(between) + len(after):
            return None
        try:
            name = raw[len(before) : end].decode()
        except UnicodeDecodeError:
            return None
        return None if self._own.startswith(self.beginning(name)) else name

    def _collections(self, raw: bytes) -> bool:
        """Whether it is a key of the collection's own."""
        own = self._own.encode()
        if raw.startswith(own):
            return True
        return self._tagged and raw.startswith(b"{") and raw.partition(b"}")[2].startswith(own)

    def key(self, namespace: str, text: str) -> bytes:
        return self.beginning(namespace).encode() + raw_of(text) + self._ends[2]

    def name_of(self, namespace: str, raw: bytes) -> str:
        """The name of the record that the key is, which ``glob`` matched."""
        start = len(self.beginning(namespace).encode())
        return text_of(raw[start : len(raw) - len(self._ends[2])])


class KeyspaceNames(Names):
    """Control keys below the store's prefix as for the native layout; the records are the application's own keys."""

    def __init__(self, prefix: str, pattern: Pattern) -> None:
        super().__init__(prefix)
        self.pattern = pattern

    def fenced(self, namespace: str) -> str:
        return self.pattern.beginning(namespace)

    def records(self, namespace: str, generation: int) -> str:
        """A key that the fence has to keep applications from."""
        return self.fenced(namespace) + PROBE + self.pattern.after

    def aside(self, namespace: str) -> str:
        return f"{self._beside(namespace)}aside"

    def index(self, namespace: str, generation: int) -> str:
        """Sorted set: the names of the records of a generation that is not the active one."""
        return f"{self._beside(namespace)}i:{generation}"

    def expiry(self, namespace: str, generation: int) -> str:
        """Sorted set: name → when it expires (ms); beside, so that nothing vanishes while it waits."""
        return f"{self._beside(namespace)}x:{generation}"

    def staged(self, namespace: str, generation: int, text: str) -> bytes:
        return f"{self._beside(namespace)}g:{generation}:".encode() + raw_of(text)

    def _beside(self, namespace: str) -> str:
        return f"{self.prefix}:{{{written(namespace)}}}:"
