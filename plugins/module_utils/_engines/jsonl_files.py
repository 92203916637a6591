# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Which file is whose: ``memory_store.path``, one file, or one for each namespace by its placeholder.

PRIVATE to the collection.
"""
from __future__ import annotations

import os
import re
import typing as t

from .._errors import InvalidInput, NamespaceUnknown, StoreMissing, StoreUnavailable
from .._layouts.lines import PLACEHOLDER
from .jsonl_file import MemoryFile

EXAMPLE: t.Final = "write it like /srv/memory/memory.jsonl or /srv/memory/{namespace}.jsonl"


class Files:
    """Without a placeholder the namespace is the file's name up to its first dot."""

    def __init__(self, path: t.Any, wait: float) -> None:
        """Errors: InvalidInput."""
        if not isinstance(path, str) or not path or "\0" in path:
            raise InvalidInput(f"memory_store.path is {path!r:.80}, not the path of a file.", EXAMPLE)
        self.path = os.path.abspath(os.path.expanduser(path))
        self._wait = wait
        self.many = PLACEHOLDER in self.path
        before, _placeholder, after = self.path.partition(PLACEHOLDER)
        if PLACEHOLDER in after or (self.many and not after):
            raise InvalidInput(
                f"memory_store.path is {path!r:.120}: it may have one {PLACEHOLDER}, and something behind it.", EXAMPLE
            )
        #: where the collection keeps what is its own
        self.control = self.path.replace(PLACEHOLDER, "") + ".memops.db"
        self.folder = os.path.dirname(before if self.many else self.path)
        self._name = os.path.basename(self.path).split(".")[0] or os.path.basename(self.path)
        part = after.partition("/")[0]
        self._match = re.compile(re.escape(os.path.basename(before)) + "(.+)" + re.escape(part), re.DOTALL).fullmatch

    def of(self, namespace: str) -> MemoryFile:
        """Errors: NamespaceUnknown for what can be no namespace here."""
        good = namespace == self._name
        if self.many:
            good = bool(namespace) and "/" not in namespace and "\0" not in namespace and namespace[0] != "."
        if not good:
            raise NamespaceUnknown(
                f"The store {self.path} has no namespace {namespace!r:.80}.",
                "name one of those that the playbook memops.agent_memory.info lists",
            )
        return MemoryFile(self.path.replace(PLACEHOLDER, namespace), self._wait)

    def names(self) -> list[str]:
        """The namespaces that have a file, or a fence in its place."""
        if not self.many:
            return [self._name] if self.of(self._name).there() or self.of(self._name).fenced() else []
        found = []
        try:
            entries = os.listdir(self.folder)
        except FileNotFoundError:
            raise StoreMissing(
                f"There is no directory {self.folder} with memories in it.", "correct memory_store.path"
            ) from None
        except OSError as exc:
            raise StoreUnavailable(
                f"The directory {self.folder} cannot be read: {exc.strerror}.", "check its permissions"
            ) from None
        for entry in entries:
            matched = self._match(entry)
            if matched is None or matched[1][0] == ".":
                continue
            try:
                matched[1].encode()
            except UnicodeEncodeError:
                continue
            file = self.of(matched[1])
            if os.path.isfile(file.path) or file.fenced():
                found.append(matched[1])
        return sorted(found)

    def look(self, create: bool) -> None:
        """Errors: StoreMissing, InvalidInput, StoreUnavailable."""
        if not os.path.isdir(self.folder):
            raise StoreMissing(f"There is no directory {self.folder}.", "correct memory_store.path")
        if not self.names() and not create and not os.path.exists(self.control):
            raise StoreMissing(
                f"There is no memory at {self.path}.",
                "correct memory_store.path, or restore a snapshot there (-e memory_create=true)",
            )
