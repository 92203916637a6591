# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a step that need not look each time notes on the memory host: when it looked last, and how far it came.

PRIVATE to the collection. A note helps and is no promise: without it, or with that of another store, the step begins
anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import typing as t

from .._errors import MemoryOpsError
from .former_repository import FOLDER
from .incident import base, folder, own_files


class HostNote:
    """The note ``file`` about the store with this id."""

    def __init__(
        self, store_params: t.Mapping[str, t.Any], file: str, work_dir: str | None, store_id: str
    ) -> None:
        self._params, self._file, self._work_dir, self._store_id = store_params, file, work_dir, store_id

    def read(self, **values: float) -> dict[str, t.Any]:
        """The values with these names, each of the given one's type; the given ones where there are none."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            with open(os.path.join(self._work_dir or base(self._params), FOLDER, self._file), encoding="utf-8") as file:
                found = json.load(file)
            if found["store_id"] == self._store_id:
                return {name: value.__class__(found[name]) for name, value in values.items()}
        return dict(values)

    def keep(self, **values: float) -> None:
        with contextlib.suppress(OSError, MemoryOpsError):
            path = os.path.join(folder(self._params, FOLDER, self._work_dir), self._file)
            with own_files(os.path.dirname(path)):
                handle = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with open(handle, "w", encoding="utf-8") as file:
                    json.dump({"store_id": self._store_id, **values}, file)
                os.replace(path + ".new", path)
