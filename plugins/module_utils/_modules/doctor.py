# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module doctor does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import Context, execute
from .._operations.doctor import CHECKS, doctor
from .._operations.doctor_base import Limits


def operate(context: Context) -> dict[str, t.Any]:
    params = context.params
    ages = {name: params[f"max_{name}"] for name in Limits._fields if name != "free"}
    return doctor(
        open_store=lambda: context.store,
        store_params=context.store_params,
        keyring_params=params["keyring"],
        repository_params=params["repository"],
        open_keyring=context.keyring,
        open_repository=context.repository,
        name=context.name,
        limits=Limits(**ages, free=params["min_free"]),
        copy=params["copy"],
        probe=params["probe"] and not context.check,
        only=params["only"] or (),
        work_dir=params["work_dir"],
    )


def main() -> None:
    defaults = Limits()
    options: dict[str, t.Any] = {
        f"max_{name}": {"type": "float", "default": getattr(defaults, name), "no_log": False}
        for name in Limits._fields
        if name != "free"
    }
    options["min_free"] = {"type": "float", "default": defaults.free}
    options["copy"] = {"type": "bool", "default": False}
    options["probe"] = {"type": "bool", "default": False}
    options["only"] = {"type": "list", "elements": "str", "choices": list(CHECKS)}
    execute(operate, options)
