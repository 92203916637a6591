# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Serve a whole memory store from the replica of its server: nothing that was acknowledged is lost.

PRIVATE to the collection. It runs where both servers can be reached; moving the route is the play's task.

look → fence all serving namespaces of the primary (data, so the replica has the fence, too) → wait until the replica
has applied it → promote → raise the epoch → lift there exactly what was fenced. What was done is noted in the store
itself, first on the one side and, replicated, on the other: the same command finishes what was cut short anywhere.
"""

from __future__ import annotations

import time
import typing as t
from dataclasses import replace

from .._errors import CannotProceed, InvalidInput, MemoryOpsError, StaleAttempt, StoreUnavailable
from .._model import Claim, IncidentState
from .._replication import Standing
from .._store import WHOLE
from . import incident as incidents
from .cluster_keys import has_rotated
from .commands import run as command
from .copy_check import check_copy
from .failover import accepts_writes
from .failover_checks import (
    Wish,
    acknowledges,
    lag_of,
    nobody_else,
    not_flapping,
    not_overtaken,
    prove,
    reachable,
    really_follows,
)
from .incident import Journal, Run, now_us
from .replicas import Side, at, lead_away, record, told

PROMOTE_SECONDS = 60.0
SETTLE_SECONDS = 15.0  # a Sentinel asks a server every ten what it is
POLL_SECONDS = 0.2
TOLD = "told_to_promote"  # the fact that names the replica which was told, from before until the failover ends


def fail_over(
    *,
    old: Side,
    new: Side,
    wish: Wish,
    open_keyring: t.Callable[[], t.Any],
    run: Run,
    check: bool = False,
) -> dict[str, t.Any]:
    """Let ``new``, a replica, take over from ``old``, its primary.

    Returns {changed, performed, incident, from, to, forced, epoch, position_before, position_after, lag_seconds,
    silent_seconds, verified_at, fenced_at, promoted_at, lifted, proof, detail}. Errors: CannotProceed, LeaseHeld,
    StoreUnavailable; ``old`` is then fenced only when the sentence says so.
    """
    if wish.force and not wish.outside_fence.strip():
        raise InvalidInput(
            "A forced failover needs to know what keeps applications from the old primary.",
            "say so: -e \"memory_outside_fence='its power is off'\"",
        )
    there = new.standing()
    if there.role == "primary":
        return _finish(old, new, wish, run, check)
    try:
        here = old.standing()
    except StoreUnavailable as exc:
        if not wish.force:
            raise CannotProceed(
                f"The primary {old.host} cannot be asked, so nobody can fence it: {exc.message}",
                "mend it, or, when it is dead for good, see to it that no application reaches it and set "
                "memory_failover=force and memory_outside_fence",
            ) from None
        return _force(old, new, there, wish, open_keyring, run, check)
    try:
        return _switch(old, new, here, there, wish, open_keyring, run, check)
    except (CannotProceed, StoreUnavailable):
        if check or not _promoted_meanwhile(old, new, run):
            raise
    return _finish(old, new, wish, run, check)  # as the same command would


def _promoted_meanwhile(old: Side, new: Side, run: Run) -> bool:
    """Whether Sentinel made ``new`` the primary by itself while this run went about it. It tells the others one after
    the other, so that is waited for."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        for side in (old, new):
            side.close()  # what was opened knew the servers in their former roles
        try:
            if new.standing().role != "primary":
                return False
            last = new.switch()
            if last is not None and last.state == "closed" and last.facts.get("run") == run.attempt:
                return False  # this run came to its end, and what it complains of came after that
            if _appointed(old, new):
                return True
        except MemoryOpsError:
            pass
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)


# --- the primary answers --------------------------------------------------------------------------------------------
def _switch(
    old: Side,
    new: Side,
    here: Standing,
    there: Standing,
    wish: Wish,
    open_keyring: t.Callable[[], t.Any],
    run: Run,
    check: bool,
) -> dict[str, t.Any]:
    begun = _open(old)
    if begun is not None and begun.facts.get("to") not in (None, new.place):
        kind = begun.facts.get("kind")
        raise CannotProceed(
            f"A {kind} of the whole store to {old.host} began and did not end (incident {begun.incident}).",
            f"finish that, then run this one again: {command(str(kind))}",
        )
    try:
        really_follows(old, new, here, there, wish)
        acknowledges(new, wish)
        if begun is None:
            not_flapping(old, wish)
        keyring = open_keyring()
        has_rotated(new.store, keyring, new.host)  # a copy that verified before does not tell
        verified = check_copy(new, wish.namespaces, lambda: keyring, fresh=wish.rpo, work_dir=run.work_dir, check=check)
        if check:
            return {
                **_result(old, new, wish),
                "changed": True,
                "detail": f"would be served from {new.host}",
                "verified_at": at(verified["verified_at"]),
                "scanned": verified["scanned"],
            }
    except MemoryOpsError as exc:  # the replica is one still, so what a former run fenced can serve again
        if begun is None or check:
            raise
        claim = incidents.claim(old.store, WHOLE, run)
        raise _lifted(old, claim, exc) from None
    claim = incidents.claim(old.store, WHOLE, run)
    journal = Journal(incidents.folder(new.params, claim.incident, run.work_dir))
    store = old.store
    fenced: dict[str, t.Any] = {}
    try:
        with journal.step("replicates", run) as outcome:
            store.note(claim, kind=wish.kind, **{"from": old.place, "to": new.place, "run": run.attempt})
            outcome["lag_seconds"] = lag = lag_of(old, new, claim, wish)
        with journal.step("fence-store", run) as outcome:
            names = store.stand_by(claim)
            proof = prove(old, names)
            fenced = {
                "fenced_at": now_us(), "position_before": old.standing().position, "lag_seconds": lag,
                "verified_at": verified["verified_at"], "fence_proof": proof,
            }  # fmt: skip
            identity = store.identity()
            store.note(claim, **fenced, fenced_epoch=identity.epoch, fenced_sequence=identity.sequence)
            outcome.update(namespaces=len(names), position=fenced["position_before"])
        with journal.step("catch-up", run) as outcome:
            outcome["position"] = new.server.applied(old.standing().position, wish.catch_up)
        store.renew(claim)
    except MemoryOpsError as exc:  # the replica is one still: this run has not promoted it
        raise _lifted(old, claim, exc) from None
    with journal.step("promote-replica", run) as outcome:
        told_before = store.incident(claim).facts.get(TOLD)
        store.note(claim, **{TOLD: new.host})
        try:
            promoted = new.server.promote(PROMOTE_SECONDS)
        except CannotProceed as exc:  # it refused
            if not told_before:
                store.note(claim, **{TOLD: None})
            raise _lifted(old, claim, exc) from None
        except MemoryOpsError as exc:
            raise _lifted(old, claim, exc) from None
        outcome.update(position=promoted.position, history=promoted.history)
    result = _serve(old, new, wish, run, journal, above=identity.epoch, position=promoted.position)
    refused = _refuses(old, claim, names)
    if not refused:
        raise CannotProceed(
            f"{old.host} still takes writes although {new.host} serves.",
            "stop its server, then run the same command again",
        )
    proof = {**result["proof"], "old_refuses_writes": refused}
    return {**result, "scanned": verified["scanned"], "proof": proof, "clients": lead_away(old)}


def _open(side: Side) -> IncidentState | None:
    """The failover that began here and did not end."""
    return next((state for state in side.store.incidents(WHOLE) if state.state == "open"), None)


def _refuses(old: Side, claim: Claim, names: t.Sequence[str]) -> bool:
    """The fence stays, the lease is given back: a rejoin need not wait for its end."""
    try:
        refused = not any(accepts_writes(old.store, name) for name in names[:1])
        old.store.end_lease(claim)
        return refused
    except StoreUnavailable:  # it died meanwhile
        return True


def _lifted(old: Side, claim: Claim, exc: MemoryOpsError) -> MemoryOpsError:
    """Nothing is left half done: ``old`` serves as before, unless the replica was told to take over, and may yet do so.
    """
    try:
        told_to = old.store.incident(claim).facts.get(TOLD)
        if told_to:
            old.store.end_lease(claim)
            return StoreUnavailable(
                f"{exc.message} The fence around {old.host} stays: {told_to} was told to become the primary, and may "
                "do so at any moment.",
                f"look at the log of the server of {told_to}, then run the same command again",
            )
        lifted = old.store.serve_again(claim)
        old.store.close_incident(claim)
    except StaleAttempt:  # a newer attempt has it in hand
        return exc
    except MemoryOpsError as worse:
        return StoreUnavailable(
            f"{exc.message} The fence around {old.host} could not be lifted, so it may stand: {worse.message}",
            "run the same command again: it goes on from there",
        )
    said = f" The fence was lifted again: {old.host} serves as before." if lifted else ""
    return CannotProceed(exc.message + said, exc.next_step)


# --- the primary is dead --------------------------------------------------------------------------------------------
def _force(
    old: Side,
    new: Side,
    there: Standing,
    wish: Wish,
    open_keyring: t.Callable[[], t.Any],
    run: Run,
    check: bool,
) -> dict[str, t.Any]:
    keyring = open_keyring()
    has_rotated(new.store, keyring, new.host)
    verified = check_copy(new, wish.namespaces, lambda: keyring, fresh=wish.rpo, work_dir=run.work_dir, check=check)
    received, epoch = there.position, new.store.identity().epoch
    known = f"its last change from {old.host} is {told(there.silent_seconds)} old, position {received}"
    if check:
        return {
            **_result(old, new, wish), "changed": True, "silent_seconds": there.silent_seconds,
            "detail": f"would be served from {new.host}; {known}", "verified_at": at(verified["verified_at"]),
            "scanned": verified["scanned"],
        }  # fmt: skip
    nobody_else(new, run)
    last = new.switch()
    name = run.incident or (last.incident if last and last.state == "open" else incidents.new_incident_id())
    journal = Journal(incidents.folder(new.params, name, run.work_dir))
    with journal.step(
        "promote-replica", run, forced=True, outside_fence=wish.outside_fence, position=received
    ) as outcome:
        promoted = new.server.promote(PROMOTE_SECONDS)
        outcome.update(position=promoted.position, history=promoted.history)
    new.close()
    chosen = Run(run.attempt, run.owner, name, run.takeover, run.work_dir)
    result = _serve(
        old, new, wish, chosen, journal, above=epoch, position=promoted.position, unfenced=True, before=received,
        silent=there.silent_seconds,
        verified=verified["verified_at"],
    )  # fmt: skip
    return {
        **result, "scanned": verified["scanned"],
        "detail": f"{result['detail']}, forced: {known}; what {old.host} had beyond that is told when it rejoins",
    }  # fmt: skip


# --- after the promotion --------------------------------------------------------------------------------------------
def _finish(old: Side, new: Side, wish: Wish, run: Run, check: bool) -> dict[str, t.Any]:
    """``new`` is a primary already: of this failover, done or half done, or of nobody's."""
    not_overtaken(old, new)
    last = new.switch()
    unfenced = last is None or last.facts.get("to") != new.place
    if unfenced:
        # A forced one that was cut short right after the promotion has left no note, and Sentinel leaves none.
        dead = wish.force and reachable(old) is None
        if not dead and not _appointed(old, new):
            raise CannotProceed(
                f"{new.host} is a primary and no replica of {old.host}.",
                "name the replica as secondary in memory_role, or fail over one namespace",
            )
        if not dead:
            wish = replace(wish, outside_fence="Sentinel made the other server the primary by itself")
    elif last is not None and last.state == "closed":
        return {**_result(old, new, wish), **_recorded(last), "changed": False, "detail": f"{new.host} serves already"}
    if check:
        return {**_result(old, new, wish), "changed": True, "detail": f"would finish the {wish.kind} to {new.host}"}
    name = (last.incident if last and last.state == "open" else None) or run.incident or incidents.new_incident_id()
    journal = Journal(incidents.folder(new.params, name, run.work_dir))
    above = last.facts.get("fenced_epoch") if last else None
    chosen = Run(run.attempt, run.owner, name, run.takeover, run.work_dir)
    result = _serve(
        old, new, wish, chosen, journal, above=above or 0, position=new.standing().position, unfenced=unfenced
    )
    if not unfenced:
        result["clients"] = lead_away(old)
    else:
        lost = f"what {old.host} had acknowledged beyond that is told when it rejoins, if it is there still"
        result["detail"] += f"; {wish.outside_fence}: {lost}"
    return result


def _appointed(old: Side, new: Side) -> bool:
    """Whether Sentinel let ``new`` take over: ``old`` follows it, or is gone."""
    here = reachable(old)
    return new.server.appointed() and (here is None or new.server.follows(here, new.standing()))


def _serve(
    old: Side,
    new: Side,
    wish: Wish,
    run: Run,
    journal: Journal,
    *,
    above: int,
    position: int,
    unfenced: bool = False,
    before: int | None = None,
    silent: float | None = None,
    verified: int | None = None,
) -> dict[str, t.Any]:
    store = new.store
    claim = incidents.claim(store, WHOLE, run)
    with journal.step("serve-store", run) as outcome:
        facts = store.incident(claim).facts
        if not facts.get("epoch") or facts.get("to") != new.place:  # else a former run has come this far
            epoch = store.raise_epoch(claim, above)
            more: dict[str, t.Any] = {} if before is None else {"position_before": before, "silent_seconds": silent}
            store.note(
                claim, kind=wish.kind, epoch=epoch, promoted_at=now_us(), position_after=position,
                forced=unfenced or None, outside_fence=wish.outside_fence or None,
                **{"from": old.place, "to": new.place, "run": run.attempt, **more},
                **({} if verified is None else {"verified_at": verified}),
            )  # fmt: skip
        lifted = store.serve_again(claim)
        facts = store.incident(claim).facts
        names = facts.get("served_again") or _serving(new)
        accepted = all(accepts_writes(store, name) for name in names[:1])
        outcome.update(epoch=facts["epoch"], lifted=len(lifted), accepts_writes=accepted)
    if not accepted:
        raise CannotProceed(
            f"{new.host} was promoted but refuses a write to {names[0]}.",
            "look at its server, then run the same command",
        )
    store.note(claim, accepts_writes=accepted)
    last = store.incident(claim)
    store.close_incident(claim)
    waits = new.server.unacknowledged()
    return {
        **_result(old, new, wish), **_recorded(last), "changed": True, "lifted": len(lifted),
        "detail": f"served from {new.host} in epoch {last.facts['epoch']}",
        **({"warnings": [f"No write on {new.host} is acknowledged: {waits[0]}. Next: {waits[1]}"]} if waits else {}),
    }  # fmt: skip


def _serving(side: Side) -> list[str]:
    with side.store.reader() as reader:
        return [state.name for state in reader.namespaces() if state.state == "serving"]


def _result(old: Side, new: Side, wish: Wish) -> dict[str, t.Any]:
    with new.store.reader() as reader:
        names = [state.name for state in reader.namespaces()]
    return {
        "performed": True, "scope": "store", "kind": wish.kind, "from": old.place, "to": new.place, "namespaces": names,
    }  # fmt: skip


def _recorded(last: IncidentState) -> dict[str, t.Any]:
    known = record(last) or {}
    return {
        "incident": last.incident,
        "forced": bool(known["forced"]),
        "outside_fence": known["outside_fence"],
        "epoch": known["epoch"],
        "position_before": known["position_before"],
        "position_after": known["position_after"],
        "silent_seconds": known["silent_seconds"],
        "lag_seconds": last.facts.get("lag_seconds"),
        "verified_at": at(last.facts.get("verified_at")),
        "proof": {
            **last.facts.get("fence_proof", {}),
            **({"new_accepts_writes": True} if last.facts.get("accepts_writes") else {}),
        },
        "fenced_at": at(last.facts.get("fenced_at")),
        "promoted_at": at(known["promoted_at"]),
    }
