# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Copies of another application's records under another name: the rows themselves, with the other namespace in them.

PRIVATE to the collection. They go in by compare-and-set, as single records that are restored do. Where the table's
unique index has no column of the namespace, the rows of the first name are in the way, and nothing is changed.
"""
from __future__ import annotations

import typing as t

from .._codec import RecordCodec
from .._errors import CapabilityMissing, InvalidInput, NamespaceQuarantined
from .._layouts import layout
from .._model import Change, Claim, Row, is_isolated
from .._table_moved import same_fields
from .._table_records import overlap
from .commands import counted
from .restore_work import Work

LISTED = 1000
BATCH_ROWS = 1000


def refuse_overlap(work: Work) -> None:
    """Errors: CapabilityMissing, InvalidInput, NamespaceQuarantined."""
    name = work.store.identity().layout
    rule = layout(name, work.store_params.get("tables")).namespace_rule()
    if rule is None:
        raise CapabilityMissing(
            f"The layout {name} cannot take copies under another name: only its application writes.",
            "restore under the same name, or export the snapshot",
        )
    if rule.kind == "json":
        same_fields(rule, work.namespace, work.target)
    if overlap(rule, work.namespace, work.target):
        raise InvalidInput(
            f"The namespace {work.target!r:.80} would lie inside {work.namespace!r:.80}, or around it.",
            "choose another memory_to_namespace",
        )
    state = work.state
    # by a restore that stopped before it was complete
    begun = state is not None and state.state == "standby" and state.restored_snapshot is None
    if state is not None and state.state != "serving" and not begun:
        raise NamespaceQuarantined(
            f"Namespace {work.target!r:.80} is {state.state} and takes no copies.", "choose another name"
        )


def copy_rows_under(
    work: Work, claim: Claim | None, parts: t.Iterable[list[Row]], overwrite: bool
) -> dict[str, t.Any]:
    """What the other name has under a key stays unless ``overwrite``."""
    codec = RecordCodec(work.namespace)
    counts = {"restored": 0, "unchanged": 0}
    damaged: list[str] = []
    newer: list[str] = []
    done = 0
    for rows in parts:
        damaged += [str(row[0]) for row in rows if not codec.intact(row)]
        whole = work.incoming(work.snapshot, (row for row in rows if codec.intact(row) and not is_isolated(row)))
        for start in range(0, len(whole), BATCH_ROWS):
            _put(work, claim, whole[start : start + BATCH_ROWS], overwrite, counts, newer)
        done += len(rows)
        work.say(done)
        work.renew(claim)
    if claim is not None and (work.state is None or work.state.state == "standby"):
        work.store.set_state(claim, "serving")
    copies = counted(counts["restored"], "copy", "copies")
    return {
        **counts,
        "newer": len(newer),
        "newer_keys": newer[:LISTED],
        "damaged": len(damaged),
        "damaged_keys": damaged[:LISTED],
        "changed": counts["restored"] > 0,
        **({"would": f"write {copies} as {work.target!r}"} if claim is None else {}),
    }


def _put(
    work: Work, claim: Claim | None, rows: t.Sequence[Row], overwrite: bool, counts: dict[str, int], newer: list[str]
) -> None:
    live: dict[str, Row] = {}
    if work.state is not None:
        with work.store.reader() as reader:
            live = reader.get_many(work.target, [row[0] for row in rows])
    changes = []
    for row in rows:
        now = live.get(row[0])
        if now == row:
            counts["unchanged"] += 1
        elif now is not None and not overwrite:
            newer.append(row[0])
        else:
            changes.append(Change(row[0], None if now is None else now[9], row, None if now is None else "restore"))
    refused = [] if claim is None else work.store.change(claim, changes)
    newer += refused
    counts["restored"] += len(changes) - len(refused)
