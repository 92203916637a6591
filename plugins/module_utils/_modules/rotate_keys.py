# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the module rotate_keys does.

PRIVATE to the collection.
"""

from __future__ import annotations

import functools
import typing as t

from .._ansible import Context, execute
from .._application_ciphers import read_keys
from .._errors import InvalidInput
from .._operations import cluster_keys
from .._operations.rotate import rotate
from .._operations.rotate_application import rotate_application


def operate(context: Context) -> dict[str, t.Any]:
    run = context.run
    new = read_keys(
        context.params["new_application_key"], context.params["new_application_key_file"], "new_application_key_file"
    )
    if len(new) > 1:
        raise InvalidInput("There are several new keys of the application.", "give one key")
    if new:
        return rotate_application(
            store_params=context.store_params,
            new_key=new[0],
            namespace=context.params["namespaces"],
            attempt=run.attempt,
            owner=run.owner,
            incident=run.incident,
            takeover=run.takeover,
            force=context.params["force"],
            check=context.check,
        )
    return rotate(
        store_params=context.store_params,
        keyring=context.keyring(),
        namespace=context.params["namespaces"],
        attempt=run.attempt,
        owner=run.owner,
        incident=run.incident,
        takeover=run.takeover,
        min_age=context.params["min_age"],
        force=context.params["force"],
        retire=context.params["retire"],
        check=context.check,
        tell=functools.partial(_tell, context) if context.has_repository else None,
    )


def _tell(context: Context, keyring: t.Any) -> None:
    cluster_keys.tell(context.repository, keyring, context.name)


def main() -> None:
    options = {
        "namespaces": {"type": "list", "elements": "str"},
        "min_age": {"type": "float", "default": 3600.0},
        "force": {"type": "bool", "default": False},
        "retire": {"type": "bool", "default": False},
        "new_application_key": {"type": "str", "no_log": True},
        "new_application_key_file": {"type": "path", "no_log": False},
    }
    execute(operate, options)
