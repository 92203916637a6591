# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The embedding function of the programs beside this file, which is no model: the same text is always in the same
place, and every other one is somewhere."""
from __future__ import annotations

import hashlib
import typing as t


def embed(texts: t.Sequence[str], dims: int) -> list[list[float]]:
    found = []
    for text in texts:
        raw = b"".join(hashlib.sha256(f"{n} {text}".encode()).digest() for n in range(dims * 2 // 32 + 1))
        found.append([int.from_bytes(raw[2 * n : 2 * n + 2], "big") / 65535 - 0.5 for n in range(dims)])
    return found
