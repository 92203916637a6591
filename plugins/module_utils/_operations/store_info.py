# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a store holds, for people and for plays. Changes nothing.

PRIVATE to the collection.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._layouts import counted_once
from .._model import NamespaceState
from .._store import Store
from .incident import rfc3339
from .probes import has_canary
from .release_records import isolated


def store_info(store: Store, store_params: t.Mapping[str, t.Any] | None = None) -> dict[str, t.Any]:
    """{identity, capabilities, warnings, namespaces: [{…, records, canary, isolated, fenced_by}], incidents: [{…}]},
    times as RFC 3339. ``records`` are the application's, tombstones included; ``canary``: whether a backup has put its
    own record beside them. ``fenced_by``: the quarantined namespace that a serving one lies in, as its fence holds
    there too; only with ``store_params``, which say whether namespaces lie in others."""
    with store.reader() as reader:
        out = {state.name: isolated(store, state.name) for state in reader.namespaces()}
        watched = {state.name: has_canary(store, reader, state.name) for state in reader.namespaces()}
        shut = [state.name for state in reader.namespaces() if state.state == "quarantined"]
        namespaces = [
            {
                **dataclasses.asdict(state),
                "records": reader.count(state.name) - watched[state.name],
                "canary": watched[state.name],
                "isolated": out[state.name],
                "fenced_by": _fenced_by(state, shut, store_params),
                "restored_at": rfc3339(state.restored_at),
            }
            for state in reader.namespaces()
        ]
        identity = dataclasses.asdict(reader.identity)
    return {
        "identity": identity,
        "capabilities": sorted(store.capabilities()),
        "warnings": store.warnings(),
        "namespaces": namespaces,
        "incidents": [
            {
                "incident": state.incident,
                "namespace": state.namespace,
                "state": state.state,
                "owner": state.owner,
                "opened": rfc3339(state.opened),
                "lease_until": rfc3339(state.lease_until),
                "facts": sorted(state.facts),
            }
            for state in store.incidents()
        ],
    }


def _fenced_by(state: NamespaceState, shut: t.Sequence[str], params: t.Mapping[str, t.Any] | None) -> str | None:
    if params is None or state.state != "serving":
        return None
    return next((one for one in shut if counted_once(params, [one, state.name]) == [one]), None)
