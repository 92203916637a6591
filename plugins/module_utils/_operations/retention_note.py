# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""When retention last looked at a store, and where it ended, on the memory host.

PRIVATE to the collection.
"""

from __future__ import annotations

import contextlib
import json
import os
import typing as t

from .._errors import MemoryOpsError
from .former_repository import FOLDER
from .incident import base, folder, write_note

DAY: t.Final = 86400.0


class Note:
    """Without it, or with that of another store, a look begins anew. ``kind`` names what was looked at; ``at`` when, in
    seconds since 1970."""

    def __init__(
        self, store_params: t.Mapping[str, t.Any], name: str, work_dir: str | None, store_id: str, kind: str
    ) -> None:
        self._params, self._work_dir, self._store_id = store_params, work_dir, store_id
        self._file = f"{name}.{kind}.json"
        self.at = 0.0
        self._numbers: dict[str, int] = {}
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            with open(os.path.join(work_dir or base(store_params), FOLDER, self._file), encoding="utf-8") as file:
                found = json.load(file)
            if found.pop("store_id") == store_id:
                at = float(found.pop("at"))
                self._numbers = {key: int(number) for key, number in found.items()}
                self.at = at

    def number(self, name: str) -> int:
        return self._numbers.get(name, 0)

    def fresh(self, now: float, seconds: float) -> bool:
        """Whether nothing that is kept for ``seconds`` need be looked at again: one look a day is enough, or each
        thirtieth of that time."""
        return 0 <= now - self.at < min(DAY, seconds / 30)

    def keep(self, at: float, **numbers: int) -> None:
        with contextlib.suppress(OSError, MemoryOpsError):
            path = os.path.join(folder(self._params, FOLDER, self._work_dir), self._file)
            write_note(path, {"store_id": self._store_id, **numbers, "at": at})
