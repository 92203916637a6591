# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What has to be true before a whole store changes servers, each with its own sentence. Nothing here changes anything.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._errors import CannotProceed, LeaseHeld, StoreUnavailable
from .._model import Claim
from .._replication import Standing
from .commands import run as command
from .incident import Run
from .replicas import Side, age, told

PROBE_SECONDS = 2.0  # how long a change on the primary may take to reach a replica that is not behind


@dataclass(frozen=True)
class Wish:
    """What was asked for. Times in seconds."""

    kind: str = "failover"  # failover | failback
    rpo: float = 900.0
    catch_up: float = 30.0
    min_interval: float = 600.0
    force: bool = False
    outside_fence: str = ""
    namespaces: t.Sequence[str] | None = None  # whose copies have to verify; None: all


def really_follows(old: Side, new: Side, here: Standing, there: Standing, wish: Wish) -> None:
    if here.role != "primary":
        raise CannotProceed(
            f"{old.host} is a replica of {here.upstream or 'another server'} itself.",
            "name the primary and its replica in the inventory: memory_role",
        )
    if not here.writable:
        raise CannotProceed(f"{old.host} takes no writes, so it cannot be fenced.", "mend that, then run it again")
    if not new.server.follows(there, here):
        if not there.link:
            found = "it is not connected to any primary"
        elif there.history != here.history:
            found = f"it follows {there.upstream} with another history"
        else:
            found = f"it says that it follows {there.upstream}, where no replica is connected"
        raise CannotProceed(
            f"{new.host} is no replica of {old.host} now: {found}.",
            "wait until a link that was cut is back, or mend the replication, then run the same command again, or fail "
            "over one namespace",
        )
    if there.silent_seconds is not None and there.silent_seconds > max(60.0, wish.rpo):
        raise CannotProceed(
            f"{new.host} has heard nothing from {old.host} for {told(there.silent_seconds)}, though it is connected.",
            "restart its replication, then run the same command again",
        )


def acknowledges(new: Side, wish: Wish) -> None:
    """Errors: CannotProceed where the new primary would take writes that nobody is ever told of."""
    found = new.server.unacknowledged()
    if found is not None and not wish.force:
        raise CannotProceed(
            f"Once {new.host} is the primary, no write there is acknowledged: {found[0]}.",
            f"{found[1]}; then run the same command again",
        )


def not_flapping(old: Side, wish: Wish) -> None:
    last = old.switch()
    since = age(last.facts.get("promoted_at")) if last else None
    if wish.force or wish.kind != "failover" or since is None or since >= wish.min_interval:
        return
    raise CannotProceed(
        f"The store changed servers {told(since)} ago, and the least time between is {told(wish.min_interval)}.",
        "find out why it has to again; then wait, or set memory_failover_min_interval",
    )


def lag_of(old: Side, new: Side, claim: Claim, wish: Wish) -> float:
    """Seconds that the replica is behind. The note that was just written has to arrive. Errors: CannotProceed."""
    position = old.standing().position
    for last in (False, True):
        try:
            new.server.applied(position, PROBE_SECONDS / 2)
            return 0.0
        except CannotProceed:
            if not last:
                old.store.renew(claim)  # something more to hear of, for who applies nothing but listens
    there = new.standing()
    silent = there.silent_seconds
    if silent is not None and silent >= PROBE_SECONDS * 0.75:
        raise CannotProceed(
            f"The replication to {new.host} is broken although it says that it is connected: it has heard nothing for "
            f"{told(silent)}.",
            "restart the replica's server, then run the same command again",
        )
    lag = there.behind_seconds if there.behind_seconds is not None else silent
    if lag is None or lag > wish.rpo:
        raise CannotProceed(
            f"{new.host} is {told(lag)} behind, and the RPO is {wish.rpo:g} s.",
            "wait until it has caught up, then run the same command again",
        )
    return lag


def prove(old: Side, names: t.Sequence[str]) -> dict[str, t.Any]:
    """That nothing serves any more, and that writes are refused. Errors: CannotProceed."""
    with old.store.reader() as reader:
        serving = [state.name for state in reader.namespaces() if state.state == "serving"]
    nobody: dict[str, t.Any] = {"writes_refused": True, "detail": ["no namespace served"], "not_fenced": []}
    proof = old.store.prove(names[0]) if names else nobody
    if serving or not proof["writes_refused"]:
        why = f"{serving[0]} serves" if serving else "; ".join(map(str, proof["detail"]))[:300]
        raise CannotProceed(
            f"The fence around {old.host} does not hold: {why}.",
            "stop the applications that write there, then run it again",
        )
    tried = names[0] if names else None
    return {"writes_refused": True, "tried_on": tried, "fenced": len(names), "not_fenced": proof["not_fenced"]}


def nobody_else(new: Side, run: Run) -> None:
    """A replica cannot be claimed before it is promoted, so its copy of the leases is asked. Errors: LeaseHeld."""
    for state in new.store.incidents():
        left = -(age(state.lease_until) or 0.0)
        if state.state == "open" and state.attempt not in ("", run.attempt, run.takeover) and 0 < left < 600:
            raise LeaseHeld(
                f"{state.owner} works on {state.namespace or 'the whole store'} (attempt {state.attempt}).",
                f"wait {left:.0f} s for the end of its lease, then run the same command again",
                {"incident": state.incident, "attempt": state.attempt, "owner": state.owner},
            )


def not_overtaken(old: Side, new: Side) -> None:
    """Errors: CannotProceed when ``old`` took over from ``new`` after all, which has not rejoined yet."""
    here = reachable(old)
    if here is None or here.role != "primary":
        return
    mine, theirs = old.store.identity(), new.store.identity()
    if mine.store_id == theirs.store_id and mine.epoch > theirs.epoch:
        raise CannotProceed(
            f"{old.host} took over from {new.host}, which has not rejoined since.",
            f"let it follow, then run this one again: {command('failback')}",
        )


def reachable(side: Side) -> Standing | None:
    try:
        return side.standing()
    except StoreUnavailable:
        return None
