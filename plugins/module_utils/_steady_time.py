# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The time since this machine's start: it goes on through a suspend, and nobody sets it.

PRIVATE to the collection. What removes things for their age compares the clock with it, since a clock that was set
ahead would make everything old.
"""

from __future__ import annotations

import time


def since_start() -> float | None:
    """Seconds since the machine started; None where the system does not tell."""
    try:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    except (AttributeError, OSError):
        return None


def start() -> int | None:
    """A number that no other start of a machine has; None where the system does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return int(file.read().replace("-", ""), 16)
    except (OSError, ValueError):
        return None
