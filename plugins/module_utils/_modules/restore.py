# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module restore does.

PRIVATE to the collection.
"""

from __future__ import annotations

import os
import typing as t

from .._ansible import Context, execute
from .._errors import StoreMissing
from .._keyring import Keyring
from .._operations.restore_step import bring_back


def keyring(context: Context) -> t.Any:
    """A store that is made here gets a keyring, too: an own active key, and by the restore those of the snapshot."""
    params = dict(context.params.get("keyring") or {})
    if context.params["create"] and params and not os.path.exists(params["path"]):
        try:
            context.store.identity()
        except StoreMissing:
            return Keyring.open({**params, "path": None}) if context.check else Keyring.open(params, create=True)
    return context.keyring()


def operate(context: Context) -> dict[str, t.Any]:
    params = context.params
    return bring_back(
        store_params=context.store_params,
        repository=context.repository(),
        keyring=keyring(context),
        name=context.name,
        run=context.run,
        snapshot=params["snapshot"],
        namespaces=params["namespaces"],
        to_namespace=params["to_namespace"],
        keys=params["keys"],
        pattern=params["pattern"],
        overwrite=params["overwrite"],
        create=params["create"],
        as_secondary=params["as_secondary"],
        expiry=params["expiry"],
        check=context.check,
    )


def main() -> None:
    options = {
        "snapshot": {"type": "str"},
        "namespaces": {"type": "list", "elements": "str"},
        "to_namespace": {"type": "str"},
        "keys": {"type": "list", "elements": "str", "no_log": False},
        "pattern": {"type": "str"},
        "overwrite": {"type": "bool", "default": False},
        "create": {"type": "bool", "default": False},
        "as_secondary": {"type": "bool", "default": False},
        "expiry": {"type": "str", "default": "keep", "choices": ["keep", "rebase"]},
    }
    execute(operate, options)
