# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether a store is of the format and the layout that it is opened as: the sentences of every engine. No I/O.

PRIVATE to the collection.
"""
from __future__ import annotations

import typing as t

from .._errors import InvalidInput


def check_kind(
    where: str, format_: t.Any, layout: t.Any, known_format: t.Any, wanted_layout: str, apart: str = ""
) -> None:
    """``format_`` and ``layout``: what the store says of itself. ``apart``: the option that keeps several layouts apart
    in one place; "" where there is one alone. Errors: InvalidInput for another one."""
    if format_ != known_format:
        raise InvalidInput(
            f"The store {where} has format {format_}; this version knows format {known_format}.",
            "upgrade the collection memops.agent_memory",
        )
    if layout != wanted_layout:
        raise InvalidInput(
            f"The store {where} has the layout {layout}, not {wanted_layout}.",
            f"set memory_store.layout to {layout}"
            + (f", or give {wanted_layout} a {apart} of its own, if it is there, too" if apart else ""),
        )
