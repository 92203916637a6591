# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module isolate does.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._ansible import RECORDS, Context, diff, execute
from .._operations.isolate import isolate
from .._operations.isolate_choice import choose
from .._operations.isolate_records import isolate_records


def operate(context: Context) -> dict[str, t.Any]:
    choice = choose(**{name: context.params[name] for name in RECORDS})
    if choice is not None:
        result = isolate_records(
            store=context.store,
            store_params=context.store_params,
            namespace=context.namespace,
            choice=choice,
            open_keyring=context.keyring,
            run=context.run,
            check=context.check,
        )
        result["diff"] = diff(result.pop("before"), result.pop("after"), context.namespace)
        return result
    result = isolate(
        store=context.store,
        store_params=context.store_params,
        namespace=context.namespace,
        run=context.run,
        outside_fence=context.params["outside_fence"],
        again=context.params["again"],
        check=context.check,
    )
    result["diff"] = diff(result.pop("before"), result.pop("after"), context.namespace)
    return result


def main() -> None:
    options = {
        "namespace": {"type": "str", "required": True},
        **RECORDS,
        "outside_fence": {"type": "str"},
        "again": {"type": "bool", "default": True},
    }
    execute(operate, options)
