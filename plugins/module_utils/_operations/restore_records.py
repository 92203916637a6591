# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Restore single records: some in place, named or by a pattern over their keys, or copies under another name.

PRIVATE to the collection.
"""
from __future__ import annotations

import time
import typing as t

from .._codec import RecordCodec
from .._errors import CannotProceed, InvalidInput, KeyUnavailable, NamespaceQuarantined, RecordCorrupt
from .._layouts import written_once
from .._model import Change, Claim, LogEntry, Record, Row, is_isolated
from .._table_records import put_off, unwritten
from .commands import NAMED, counted, named, run
from .held_records import aside_of, outstanding
from .isolate_choice import Choice, choose
from .restore_work import Work

LISTED = 1000
BATCH_ROWS = 1000
BATCH_BYTES = 8 << 20
RESERVED = "\0memops/"


def copies_of(work: Work, keys: t.Sequence[str]) -> dict[str, Row]:
    """The snapshot's rows of these keys. Errors: InvalidInput, CannotProceed for any that it does not have."""
    wanted = sorted(set(keys))
    if not wanted:
        raise InvalidInput("The list of keys to restore is empty.", "name at least one key")
    found = work.snapshot.get_many(work.namespace, wanted)
    # of what was isolated when it was taken the snapshot has no copy
    missing = [key for key in wanted if key not in found or is_isolated(found[key])]
    if missing:
        following = "leave them out, or name a snapshot that has them in memory_snapshot (export lists its keys)"
        meant = _encoded(work, missing)
        if meant:
            following = f"a slash or per cent sign inside a key is written as %2F or %25: name {meant[0]!r}"
        raise CannotProceed(
            f"Nothing is restored: {len(missing)} of the {len(wanted)} keys that are named are not in snapshot "
            f"{work.snapshot.id}: {named(missing)}.",
            following,
        )
    return found


def _encoded(work: Work, keys: t.Sequence[str]) -> list[str]:
    """Keys of the snapshot that these may have been meant for: layouts that join parts to a key encode them."""
    tried = {key.replace("%", "%25").replace("/", "%2F") for key in keys if "/" in key or "%" in key}
    return sorted(work.snapshot.get_many(work.namespace, sorted(tried))) if tried else []


def parts_of(work: Work, keys: t.Sequence[str] | None, pattern: str | None) -> t.Iterator[list[Row]]:
    """The snapshot's rows that are to come back: all of them, or these keys, and beside them those whose key matches,
    whose time is not over and that nobody isolated. Errors, before the first: InvalidInput, CannotProceed."""
    if keys is None and pattern is None:
        yield from work.snapshot.scan(work.namespace)
        return
    named_rows = copies_of(work, keys) if keys is not None else {}
    if named_rows:
        yield [named_rows[key] for key in sorted(named_rows)]
    if pattern is None:
        return
    choice = t.cast(Choice, choose(pattern=pattern))
    now = time.time_ns() // 1000
    left = {*named_rows, *_isolated(work)}
    some = bool(named_rows)
    for rows in work.snapshot.scan(work.namespace):
        part = [row for row in rows if choice.takes(row) and not is_isolated(row) and row[0] not in left]
        if work.incoming.fixed:
            part = [row for row in part if row[5] is None or row[5] > now]
        if part:
            some = True
            yield part
    if not some:
        raise choice.nothing(work.namespace, (), f"record in snapshot {work.snapshot.id}")


def _isolated(work: Work) -> set[str]:
    if work.state is None or work.target != work.namespace:
        return set()
    groups = outstanding(work.store, work.namespace)
    with work.store.reader() as reader:
        return {row[0] for rows in aside_of(reader, work.namespace, groups) for row in rows}


def some_keys(
    work: Work, claim: Claim | None, parts: t.Iterable[list[Row]], overwrite: bool, keys: t.Collection[str] = ()
) -> dict[str, t.Any]:
    """Bring these records back in place: missing and damaged ones as they were, and of ``keys`` also those that were
    changed without their update time; others, newer or not, only with ``overwrite``. What gives way lies aside."""
    once = written_once("")
    if work.state is not None:
        with work.store.reader() as reader:
            once = written_once(reader.identity.layout)
    result: dict[str, t.Any] = dict.fromkeys(("restored", "unchanged", "damaged", "newer"), 0)
    result.update(damaged_keys=[], newer_keys=[])
    brought: set[str] = set()
    done = 0
    for rows in parts:
        one = _part(work, claim, rows, overwrite, once, keys, brought)
        for name, value in one.items():
            result[name] = (result[name] + value)[:LISTED] if isinstance(value, list) else result[name] + value
        done += len(rows)
        work.say(done)
    result["changed"] = bool(result["restored"])
    if result["newer"]:
        result["warnings"] = [_kept(work, result)]
    if claim is None:
        return {**result, "would": f"restore {counted(result['restored'], 'record')} in place"}
    work.store.import_log(claim, _entries(work, brought))
    if work.state is not None and work.state.state == "standby" and work.state.restored_snapshot is None:
        work.store.set_state(claim, "serving")
    return result


def _part(
    work: Work,
    claim: Claim | None,
    rows: t.Sequence[Row],
    overwrite: bool,
    once: t.Callable[[str], bool],
    keys: t.Collection[str],
    brought: set[str],
) -> dict[str, t.Any]:
    """What some_keys() counts, of these rows; ``brought`` gets the keys that came back as they were."""
    saved = {row[0]: row for row in rows}
    logged = "log" in work.store.capabilities()
    wanted = sorted(saved)
    codec = RecordCodec(work.namespace)
    damaged = [key for key in wanted if not codec.intact(saved[key])]
    copies = {row[0]: row for row in work.incoming(work.snapshot, [saved[key] for key in wanted if key not in damaged])}
    live: dict[str, Row] = {}
    taken = work.snapshot.info.at
    if work.state is not None:
        with work.store.reader() as reader:
            live = reader.get_many(work.target, wanted)
    changes: list[Change] = []
    newer: list[str] = []
    unchanged = 0
    for key, row in copies.items():
        now = live.get(key)
        if now is not None and codec.intact(now) and not _isolated_from(now, row):
            if now in (row, saved[key]):
                unchanged += 1
            elif not logged and key in keys and unwritten(now, saved[key], taken, once(key)) and not put_off(
                now, saved[key]
            ):
                changes.append(Change(key, now[9], row, "restore"))
            else:
                newer.append(key)
        else:
            changes.append(Change(key, None if now is None else now[9], row, None if now is None else "restore"))
    rewritten = [key for key in newer if copies[key][6] is None] if overwrite else []
    newer = [key for key in newer if key not in rewritten] if rewritten else newer
    counts = {"unchanged": unchanged, "damaged": len(damaged), "damaged_keys": damaged[:LISTED]}
    if claim is None:
        return {**counts, "restored": len(changes) + len(rewritten), "newer": len(newer), "newer_keys": newer}
    if not logged:  # in place too, whoever wrote the newer one
        changes += [Change(key, live[key][9], copies[key], "restore") for key in rewritten]
        rewritten = []
    if rewritten and work.state is not None and work.state.state != "serving":
        raise NamespaceQuarantined(
            f"Namespace {work.target!r:.80} is {work.state.state}: nothing can be written over newer records.",
            "release it first, or restore under another name",
        )
    refused: list[str] = []
    for start in range(0, len(changes), BATCH_ROWS):
        refused += work.store.change(claim, changes[start : start + BATCH_ROWS])
        work.renew(claim)
    brought.update(change.key for change in changes)
    if rewritten:
        aside = [(Change(key, live[key][9], None, "restore"), Change(key, None, live[key])) for key in rewritten]
        work.store.change(claim, [change for pair in aside for change in pair])
        _write(work, [copies[key] for key in rewritten], True, [])
    restored = len(changes) + len(rewritten) - len(refused)
    newer += refused  # somebody wrote them meanwhile
    return {**counts, "restored": restored, "newer": len(newer), "newer_keys": newer}


def _kept(work: Work, result: t.Mapping[str, t.Any]) -> str:
    """Which of the named keys stay as they are, why, and the command that replaces them all the same."""
    keys = result["newer_keys"]
    command = "the same command with -e memory_force=true"
    if len(keys) <= NAMED and work.target == work.namespace:
        command = run(
            "restore", memory_namespace=work.target, memory_snapshot=work.snapshot.id, memory_keys=keys,
            memory_force="true",
        )  # fmt: skip
    return (
        f"Kept in {work.target:.80}: {named(keys)}. What is there is other than in snapshot {work.snapshot.id}, and "
        "was written after it as far as the store can tell, or was not named by its key. To put the snapshot's in its "
        f"place and set aside what is there now: {command}"
    )


def _isolated_from(now: Row, row: Row) -> bool:
    """Whether ``now`` is but the tombstone of this very record, which an operator isolated and another one names."""
    return is_isolated(now) and now[:5] == row[:5]


def _entries(work: Work, keys: set[str]) -> list[LogEntry]:
    """The logged writes of these keys, as the snapshot has them."""
    if not keys:
        return []
    return [
        entry
        for entries in work.snapshot.log(work.namespace)
        for entry in entries
        if entry[4] in keys and entry[3] in ("write", "delete")
    ]


def copy_under(work: Work, parts: t.Iterable[list[Row]], overwrite: bool) -> dict[str, t.Any]:
    """Copies under another name: opened, sealed anew (a record is bound to its namespace) and written normally."""
    if work.state is not None and work.state.state != "serving":
        raise NamespaceQuarantined(
            f"Namespace {work.target!r:.80} is {work.state.state} and takes no copies.", "choose another name"
        )
    codec = RecordCodec(work.namespace)
    now = time.time_ns() // 1000
    skipped: list[str] = []
    result = {"restored": 0, "unchanged": 0, "newer": 0}
    newer: list[str] = []
    done = 0
    for rows in parts:
        live = [row for row in rows if isinstance(row[0], str) and not row[0].startswith(RESERVED)]
        skipped += [str(row[0]) for row in live if not codec.intact(row)]
        live = [row for row in live if codec.intact(row) and row[6] is None and (row[5] is None or row[5] > now)]
        for part in _pieces(live):
            written, unchanged = (len(part), 0) if work.check else _write(work, part, overwrite, skipped, newer)
            result["restored"] += written
            result["unchanged"] += unchanged
        done += len(rows)
        work.say(done)
    copies = counted(result["restored"], "copy", "copies")
    return {
        **result,
        "newer": len(newer),
        "newer_keys": newer[:LISTED],
        "damaged": len(skipped),
        "damaged_keys": skipped[:LISTED],
        "changed": result["restored"] > 0,
        **({"would": f"write {copies} as {work.target!r}"} if work.check else {}),
    }


def _pieces(rows: list[Row]) -> t.Iterator[list[Row]]:
    part: list[Row] = []
    size = 0
    for row in rows:
        part.append(row)
        size += len(row[8])
        if len(part) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _write(
    work: Work, rows: list[Row], overwrite: bool, skipped: list[str], newer: list[str] | None = None
) -> tuple[int, int]:
    """Write the values of these rows under the target's name: (written, already there)."""
    source, codec, keyring = RecordCodec(work.namespace), RecordCodec(work.target), work.keyring
    values: dict[str, bytes] = {}
    kept: dict[str, Row] = {}
    for row in rows:
        try:
            values[row[0]] = keyring.open_payload(row[8], source.head(row), row[7])
            kept[row[0]] = row
        except (RecordCorrupt, KeyUnavailable):
            skipped.append(row[0])
    if not kept:
        return 0, 0
    key_id = keyring.active_id
    unchanged = 0
    with work.store.writing(work.target, len(kept)) as write:
        current = write.current(list(kept))
        puts: list[Row] = []
        entries: list[tuple[t.Any, ...]] = []
        for key, row in kept.items():
            now = current.get(key)
            if now is not None and codec.intact(now) and now[6] is None:
                try:
                    same = keyring.open_payload(now[8], codec.head(now), now[7]) == values[key] and now[5] == row[5]
                except (RecordCorrupt, KeyUnavailable):
                    same = False
                if same:
                    unchanged += 1
                    continue
                if not overwrite:
                    if newer is not None:
                        newer.append(key)
                    continue
            sequence = write.first_sequence + len(puts)
            new = Record(key, write.epoch, sequence, row[3], write.at, row[5], None, key_id, b"", b"")
            new = new._replace(payload=keyring.seal(values[key], codec.head(new), key_id))
            new = new._replace(checksum=codec.checksum(new))
            puts.append(tuple(new))
            entries.append(
                (
                    0, write.at, work.target, "write", key, new.epoch, new.sequence, new.checksum, write.lock,
                    work.owner, f"restore from {work.snapshot.id}", b"",
                )
            )  # fmt: skip
        if puts:
            write.put(puts, entries)
    return len(puts), unchanged
