# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Numbers in sentences.

PRIVATE to the collection.
"""

from __future__ import annotations


def counted(number: int, one: str, several: str = "") -> str:
    """``1 record``, ``2 records``. What does not take an s is given: ``counted(n, "record is", "records are")``."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
