# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module store_info does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, execute
from .._operations.store_info import store_info


def operate(context: Context) -> dict[str, t.Any]:
    return store_info(context.store, context.store_params)


def main() -> None:
    execute(operate, {})
