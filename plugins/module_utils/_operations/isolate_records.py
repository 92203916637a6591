# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Take single records out of service, while their namespace goes on serving; release_records.py brings them back.

PRIVATE to the collection.
"""

from __future__ import annotations

import secrets
import time
import typing as t

from .._codec import RecordCodec
from .._errors import CannotProceed, CapabilityMissing, InvalidInput
from .._model import CHECKSUM, KEY, PAYLOAD, UPDATED, Change, Claim, Row, is_isolated
from .._store import Store
from . import incident as incidents
from .commands import counted
from .commands import run as command
from .held_records import (
    LISTED,
    REASON,
    ROUNDS,
    aside_of,
    chosen_rows,
    claimed,
    closing,
    end_left_open,
    fit,
    home,
    log,
    outstanding,
    renew,
    some,
    told,
)  # fmt: skip
from .incident import Journal, Run, now_us
from .isolate_choice import Choice

Sealer = t.Any  # _keyring.Keyring


def isolate_records(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    choice: Choice,
    open_keyring: t.Callable[[], Sealer],
    run: Run,
    check: bool = False,
) -> dict[str, t.Any]:
    """Take the chosen records of ``namespace`` out of service; the namespace keeps its state.

    Returns {incident, changed, isolated, already, record_keys (the first 100), refused_keys, unknown_keys, warnings,
    detail, before, after}. Errors: InvalidInput (nothing is chosen by it, unknown keys, too damaged), NamespaceUnknown,
    CannotProceed (a standby copy), LeaseHeld, KeyUnavailable (a tombstone has to be sealed).
    """
    state = home(store, namespace)
    plain = "tombstones" not in store.capabilities()  # nothing stands in the place of what was taken
    if choice.timed and plain:
        raise CapabilityMissing(
            f"The records of {namespace} have no time of their last write (sequence), so none can be chosen by it.",
            "choose them by memory_keys or memory_pattern",
        )
    found = _Found()
    for rows, odd in chosen_rows(store, namespace, choice):
        found.add(rows, odd, choice.keys)
    if plain and (choice.keys - found.named or not (found.count or found.odd)):
        found.add_away(store, namespace, choice)
    unknown = sorted(choice.keys - found.named)
    if (unknown and not choice.wide) or not (found.count or found.already or found.odd):
        raise choice.nothing(namespace, unknown, "record")
    warnings = [f"{namespace} has no record {some(unknown)}; nothing was done about that."] if unknown else []
    if found.odd:
        are, they = ("is", "it is") if len(found.odd) == 1 else ("are", "they are")
        many = f"{counted(len(found.odd), 'record')} of {namespace} {are}"
        text = f"{many} too damaged to come back as {they} ({some(found.odd)})"
        if set(found.odd) & choice.keys:
            raise InvalidInput(f"{text}.", command("rebuild", memory_namespace=namespace))
        warnings.append(f"{text}: nothing was done about that, and a rebuild takes care of it.")
    result: dict[str, t.Any] = {
        "incident": None, "changed": bool(found.count), "isolated": found.count, "already": found.already,
        "record_keys": found.keys, "refused_keys": [], "unknown_keys": unknown[:LISTED], "warnings": warnings,
        "before": {"isolated": []}, "after": {"isolated": found.keys},
    }  # fmt: skip
    result["detail"] = told(result["isolated"], "would go" if check else "went", "out of service", state.state)
    if check:
        return result
    if not found.count:
        end_left_open(store, namespace, run)
        return result
    ring = None if plain else open_keyring()
    if ring is not None:
        ring.cipher(ring.active_id)
    claim = claimed(store, namespace, run)
    journal = Journal(incidents.folder(store_params, claim.incident, run.work_dir))
    with closing(store, claim), journal.step("isolate", run, records=found.count) as outcome:
        group = time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime()) + secrets.token_hex(4)
        held = dict(store.incident(claim).facts.get("held") or {})
        store.note(claim, held={**held, group: choice.told()})
        log(store, claim, run, "isolate", f"{group}: {choice.told()}")
        taker = _Taker(store, claim, choice, group, ring)
        for rows, _odd in chosen_rows(store, namespace, choice):
            taker.take(rows)
        result.update(incident=claim.incident, changed=bool(taker.count), isolated=taker.count)
        result.update(record_keys=taker.keys, refused_keys=taker.refused[:LISTED], after={"isolated": taker.keys})
        result["detail"] = told(taker.count, "went", "out of service", state.state)
        outcome.update(isolated=taker.count, refused=len(taker.refused))
        if taker.refused:
            raise CannotProceed(
                f"{len(taker.refused)} of the records of {namespace} are written so often that they could not be taken "
                f"out of service ({some(taker.refused)}); {taker.count} others were.",
                "stop the program that writes them, or isolate the whole namespace, then run the same command again",
            )
    return result


class _Found:
    """What a choice comes to, counted without holding it."""

    def __init__(self) -> None:
        self.count = self.already = 0
        self.keys: list[str] = []
        self.odd: list[str] = []
        self.named: set[str] = set()

    def add(self, rows: t.Sequence[Row], odd: t.Sequence[str], named: t.AbstractSet[str]) -> None:
        fresh = [row[KEY] for row in rows if not is_isolated(row)]
        self.count += len(fresh)
        self.already += len(rows) - len(fresh)
        self.keys += fresh[: LISTED - len(self.keys)]
        self.odd += odd[: 10 * LISTED - len(self.odd)]
        self.named |= named & {*(row[KEY] for row in rows), *odd}

    def add_away(self, store: Store, namespace: str, choice: Choice) -> None:
        """What lies aside since a former isolation, where nothing stands in its place to tell of it."""
        groups = outstanding(store, namespace)
        with store.reader() as reader:
            for rows in aside_of(reader, namespace, groups):
                away = [row[KEY] for row in rows if choice.takes(row)]
                self.already += len(away)
                self.named |= choice.keys & set(away)


class _Taker:
    """Sets chosen rows aside under one group, a tombstone in the place of each, by compare-and-set."""

    def __init__(self, store: Store, claim: Claim, choice: Choice, group: str, ring: Sealer) -> None:
        self._store, self._claim, self._choice, self._ring = store, claim, choice, ring
        self._reason, self._codec = REASON + group, RecordCodec(claim.namespace)
        self._renewed = time.monotonic()
        self.count = 0
        self.keys: list[str] = []
        self.refused: list[str] = []

    def take(self, rows: t.Sequence[Row]) -> None:
        for number in range(ROUNDS):
            rows = [row for row in rows if not is_isolated(row)]
            if not rows:
                return
            changes = [Change(row[KEY], row[CHECKSUM], self._tombstone(row), self._reason) for row in rows]
            refused = set(self._store.change(self._claim, changes))
            self.count += len(rows) - len(refused)
            done = [row[KEY] for row in rows if row[KEY] not in refused]
            self.keys += done[: LISTED - len(self.keys)]
            self._renewed = renew(self._store, self._claim, self._renewed)
            if not refused:
                return
            if number == ROUNDS - 1:
                self.refused += sorted(refused)[: max(0, 10 * LISTED - len(self.refused))]
                return
            with self._store.reader() as reader:  # somebody wrote them: they may be chosen still
                live = reader.get_many(self._claim.namespace, sorted(refused))
            rows = fit(self._store, self._choice, live.values())[0]

    def _tombstone(self, row: Row) -> Row | None:
        if self._ring is None:
            return None
        key_id = self._ring.active_id
        bare: Row = (
            *row[: UPDATED + 1], None, max(now_us(), row[UPDATED] + 1), key_id, b"", b"",
        )  # fmt: skip
        sealed = (*bare[:PAYLOAD], self._ring.seal(b"", self._codec.head(bare), key_id), b"")
        return (*sealed[:CHECKSUM], self._codec.checksum(sealed))
