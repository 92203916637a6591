# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""An application's own memory object as a store: the layout ``python``.

PRIVATE to the collection. Its parts stand in the files python_*.py beside this one.
"""
from __future__ import annotations

import typing as t

from .._errors import MemoryOpsError
from .._layouts import Layout
from .applications_own import WithoutLog
from .python_child import Item
from .python_fence import NO_HOOKS
from .python_records import ObjectRecords

MOST_ENTRIES = 1_000_000  # of an access log
#: What goes without them. Of others that an object may lack the step tells that would have called them.
NEEDED: t.Final = {
    "write": "nothing can be repaired or restored",
    "delete": "nothing can be repaired or restored",
}


class PythonStore(WithoutLog, ObjectRecords):
    """See _store.Store, and _store_own for what it tells beyond that."""

    @classmethod
    def open(cls, params: t.Mapping[str, t.Any], layout: Layout, *, create: bool = False) -> PythonStore:
        """The application makes its object's storage itself, whatever ``create``."""
        store: PythonStore = cls.opened(params, layout)
        return store

    def layout_name(self) -> str:
        return self.sql.layout

    def warnings(self) -> list[str]:
        try:
            lines = [] if self.hooked() else [
                f"nothing in the memory object keeps applications away ({NO_HOOKS}): isolate needs memory_outside_fence"
            ]  # fmt: skip
            lacks = [name for name in NEEDED if name not in self.remote.offers()]
        except MemoryOpsError as exc:
            return [exc.message]
        return lines + [f"the memory object has no {name}: {NEEDED[name]}" for name in lacks]

    # --- what the object itself tells and does --------------------------------------------------------------------
    def own_log(self, namespace: str, each: t.Callable[[list[Item]], None]) -> str | None:
        if "get_access_logs" not in self.remote.offers():
            return "the memory object has no get_access_logs"
        try:
            self.remote.ask("operator", "entries", namespace, MOST_ENTRIES, each=each)
        except MemoryOpsError as exc:
            return exc.message.rstrip(".")
        return None

    def own_benchmark(self, namespace: str) -> t.Any:
        self.remote.need("evaluate_benchmark")
        return self.remote.call("evaluate_benchmark", namespace)

    def has_own_benchmark(self) -> bool:
        return "evaluate_benchmark" in self.remote.offers()

    def check_rotation(self) -> None:
        self.remote.need("rotate_keys")

    def rotate_own_keys(self) -> t.Any:
        return self.remote.call("rotate_keys")
