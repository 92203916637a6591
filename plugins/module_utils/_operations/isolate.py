# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Isolate a namespace and release it again.

PRIVATE to the collection. Touches the store alone: a missing snapshot, key or bucket never prevents an isolation.
"""

from __future__ import annotations

import typing as t

from .._errors import CannotProceed, CapabilityMissing, NamespaceDamaged
from .._model import Claim, NamespaceState
from .._store import Store
from .._store_optional import ControlRows, left_fences, need_primary
from . import incident as incidents
from . import lost_ttl
from .commands import run as command
from .fence_check import need_fence
from .forgotten import refuse_forgotten
from .incident import Journal, Run, now_us, rfc3339

NOTHING = "nothing can be isolated"  # what a store's warning says that knows why it has no fence


def isolate(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    run: Run,
    outside_fence: str | None = None,
    again: bool = True,
    check: bool = False,
) -> dict[str, t.Any]:
    """Fence ``namespace`` and prove it.

    ``again`` False: a quarantine that stands and holds is left to whoever works on it; nothing is claimed or noted.

    ``outside_fence`` says what keeps applications away where the store cannot (capability outside-fence); it becomes
    ``outside`` of the proof. A control row that does not lead to the namespace's records is mended first.
    Returns {incident, changed, fenced_at, before, after, proof, warnings}. Errors: NamespaceDamaged (with ``check``),
    NamespaceUnknown, LeaseHeld, CapabilityMissing, and CannotProceed when the proof fails (the fence stays up as far
    as it holds).
    """
    standing = None if again else _standing(store, namespace)
    if standing is not None:
        return standing
    known_words = store.capabilities()
    said = (outside_fence or "").strip() if "outside-fence" in known_words else ""
    if "fence-reads" not in known_words and "outside-fence" in known_words and not said:
        raise CapabilityMissing(
            f"Nothing in the store keeps an application from {namespace} (fence-reads, fence-writes).",
            "stop the application and say how: -e \"memory_outside_fence='the service agent is stopped'\", or give its "
            "memory object the methods quarantine and release (docs/python_memory.md)",
        )
    if "fence-reads" not in known_words and not said:
        why = next((line.partition(": nothing can be")[0] for line in store.warnings() if NOTHING in line), "")
        raise CapabilityMissing(
            f"Nothing can keep an application from {namespace} here (fence-reads, fence-writes)"
            + (f": {why}." if why else "."),
            "give the application a plain user of its own on the server and name that one in "
            "memory_store.application_user",
        )
    before, mended = _led_back(store, namespace, check)
    ttl_lost = lost_ttl.is_lost(store, before)
    incident, known = incidents.facts(store, namespace, run.incident)
    done = before.state == "quarantined"
    policy = _policy(store, before.state, before.serving_ttl)
    fenced = _policy(store, "quarantined", 1.0)
    if check:
        return {
            "incident": run.incident or incident,
            "changed": not done,
            "fenced_at": known.get("fenced_at"),
            "before": policy,
            "after": fenced,
            "proof": None,
            "warnings": [],
        }
    claim = incidents.claim(store, namespace, run)
    journal = Journal(incidents.folder(store_params, claim.incident, run.work_dir))
    with journal.step("isolate", run, namespace=namespace, state=before.state) as outcome:
        changed = store.fence(claim)
        noted = incidents.facts(store, namespace, claim.incident)[1]
        fenced_at = noted.get("fenced_at")
        if changed or not fenced_at or str(noted.get("released_at") or "") > fenced_at:  # else of the fence before
            identity = store.identity()
            fenced_at = rfc3339(now_us())
            store.note(
                claim,
                fenced_at=fenced_at,
                fenced_epoch=identity.epoch,
                fenced_sequence=identity.sequence,
                started_at=known.get("started_at") or fenced_at,
                state_before=policy,
                **({lost_ttl.FACT: True} if ttl_lost else {}),
                # a release that was cut short had come to its end
                **({"released_at": fenced_at, "releasing": None} if changed and noted.get("releasing") else {}),
            )
        proof = {**store.prove(namespace), "outside": said or None}
        if said:
            proof["detail"] = [*proof["detail"], f"from outside, not tried: {said}"]
        outcome.update(changed=changed, proof=proof, mended=mended)
    proven = proof["writes_refused"] and proof["reads_refused"]
    if not proven and not said:
        raise CannotProceed(
            f"The fence around {namespace} is up but its proof failed: {'; '.join(map(str, proof['detail']))[:300]}.",
            "end what that names, or stop the applications that use the store, then run isolate again",
        )
    return {
        "incident": claim.incident,
        "changed": changed or bool(mended),
        "fenced_at": fenced_at,
        "before": policy,
        "after": fenced,
        "proof": proof,
        "warnings": mended
        + ([lost_ttl.warning(namespace)] if ttl_lost else [])
        + ([] if proven else [_unproven(namespace, proof)]),
    }


def _led_back(store: Store, namespace: str, check: bool) -> tuple[NamespaceState, list[str]]:
    """(the state of the namespace, what was mended of control rows so that it can be told)."""
    mended: list[str] = []
    while True:
        try:
            store.incidents(namespace)
            with store.reader() as reader:
                return reader.namespace(namespace), mended
        except NamespaceDamaged:
            if check or mended or not isinstance(store, ControlRows):
                raise
            mended = [f"{line[0].upper()}{line[1:]}." for line in store.lead_back()]
            if not mended:
                raise


def _standing(store: Store, namespace: str) -> dict[str, t.Any] | None:
    """What isolate() returns of a quarantine that stands and holds, as far as the store has a fence; else None."""
    try:
        store.incidents(namespace)
        with store.reader() as reader:
            found = reader.namespace(namespace)
    except NamespaceDamaged:  # the isolation mends it
        return None
    if found.state != "quarantined":
        return None
    proof = None
    if "fence-reads" in store.capabilities():
        proof = {**store.prove(namespace), "outside": None}
        if not (proof["writes_refused"] and proof["reads_refused"]):
            return None
    incident, known = incidents.facts(store, namespace)
    policy = _policy(store, found.state, found.serving_ttl)
    return {
        "incident": incident,
        "changed": False,
        "fenced_at": known.get("fenced_at"),
        "before": policy,
        "after": policy,
        "proof": proof,
        "warnings": [],
        "detail": f"quarantined already, in {f'the incident {incident}' if incident else 'an incident that is closed'}",
    }


def _policy(store: Store, state: str, ttl: float | None) -> dict[str, t.Any]:
    """What applications meet. ``Memory`` checks a serving TTL when it reads, so there is one only where that writes the
    access log."""
    return {"state": state, **({"serving_ttl": ttl} if "log" in store.capabilities() else {})}


def _unproven(namespace: str, proof: t.Mapping[str, t.Any]) -> str:
    taken = [word for word in ("reads", "writes") if not proof[f"{word}_refused"]]
    return (
        f"Nothing in the store keeps {' and '.join(taken)} of applications from {namespace}. The quarantine rests on "
        f"what was said: {proof['outside']}. What is written in spite of it may be overwritten."
    )


def release(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    run: Run,
    force: bool = False,
    route_away: bool = False,
    check: bool = False,
) -> dict[str, t.Any]:
    """Lift the fence and bring the former policy back.

    Refused while the route points to the secondary, while a rebuild is neither finished nor validated, after a
    validation that failed, and after an escalation that nobody accepted; ``force`` overrides all but the first and is
    noted in the journal. A quarantine in which nothing was planned or validated was a false alarm, and is lifted.
    Returns {incident, changed, released_at, first_write_at (the secondary's, when it served meanwhile), before,
    after, warnings}. Errors: CannotProceed, NamespaceUnknown, LeaseHeld, StoreUnavailable (a replica).
    """
    need_primary(store)
    with store.reader() as reader:
        before = reader.namespace(namespace)
    incident, known = incidents.facts(store, namespace, run.incident)
    after = _policy(store, before.prior_state or "serving", before.prior_ttl)
    if before.state != "quarantined":
        if incident is None:
            refuse_forgotten(store, store_params, namespace, run)
        cut_short = bool(known.get("releasing")) and incidents.is_open(store, namespace, incident)
        released_at = known.get("released_at")
        if cut_short and not check:
            released_at = _note_release(store, incidents.claim(store, namespace, run), known)
        return {
            "incident": incident,
            "changed": cut_short,
            "released_at": released_at,
            "first_write_at": known.get("first_write_at"),
            "before": _policy(store, before.state, before.serving_ttl),
            "after": _policy(store, before.state, before.serving_ttl),
        }
    if route_away:
        raise CannotProceed(
            f"{namespace} is served by the secondary; releasing it here would give it two homes.",
            command("failback", memory_namespace=namespace),
        )
    if not force:
        _refuse_unfinished(namespace, known)
        if known.get("applied"):  # what was validated since nobody else was to change
            need_fence(store, namespace)
    if check:
        return {
            "incident": incident,
            "changed": True,
            "released_at": None,
            "before": _policy(store, before.state, before.serving_ttl),
            "after": after,
        }
    claim = incidents.claim(store, namespace, run)
    journal = Journal(incidents.folder(store_params, claim.incident, run.work_dir))
    with journal.step("release", run, forced=force) as outcome:
        sequence = store.identity().sequence  # before the first write that follows what was applied
        kept = known.get("released_sequence") or sequence
        store.note(claim, releasing=True, released_sequence=kept, released_by_force=force or None)
        changed = store.unfence(claim)
        outcome.update(changed=changed)
    released_at = _note_release(store, claim, known)
    return {
        "incident": claim.incident,
        "changed": changed,
        "released_at": released_at,
        "first_write_at": known.get("first_write_at"),
        "before": _policy(store, before.state, before.serving_ttl),
        "after": after,
        "warnings": [f"{one.says} Next: {one.next_step}" for one in left_fences(store, namespace)]
        + ([lost_ttl.warning(namespace)] if known.get(lost_ttl.FACT) else []),
    }


def _note_release(store: Store, claim: Claim, known: t.Mapping[str, t.Any]) -> str | None:
    """The fence is lifted; since when, as far as anybody knows."""
    released_at = rfc3339(now_us())
    store.note(claim, released_at=released_at, releasing=None if known.get("plan") else True)
    if not known.get("plan"):
        store.close_incident(claim)  # nothing was rebuilt: there is nothing to watch
    return released_at


def _refuse_unfinished(namespace: str, known: t.Mapping[str, t.Any]) -> None:
    plan, applied, validated = known.get("plan"), known.get("applied"), incidents.since_release(known, "validated")
    if not (known.get("application_rotation") or {}).get("done", True):
        raise CannotProceed(
            f"A rotation of the application's key of {namespace} is not finished: some values have the former key.",
            f"with the same new key again: {command('rotate_keys', memory_namespace=namespace)}",
        )
    if plan and plan.get("escalate") and not known.get("loss_accepted"):
        raise CannotProceed(
            f"{namespace} was escalated: {plan.get('escalate_reason', 'the loss is above the limit')}.",
            "follow docs/dr_plan.md, or release with memory_force=true when the owners accept the loss",
        )
    if plan and not (applied and applied.get("complete")):
        raise CannotProceed(
            f"The rebuild of {namespace} is planned but not finished.",
            command("rebuild", memory_namespace=namespace),
        )
    if not plan and (validated or {}).get("verdict") == "fail":
        raise CannotProceed(
            f"The validation of {namespace} failed, and nothing was rebuilt since.",
            f"rebuild it, or release with memory_force=true: {command('rebuild', memory_namespace=namespace)}",
        )
    if applied and (validated or {}).get("verdict") != "pass":
        raise CannotProceed(
            f"{namespace} was rebuilt but its validation says {(validated or {}).get('verdict', 'nothing yet')}"
            + (", as it was released since." if known.get("validated") and not validated else "."),
            f"validate it, or release with memory_force=true: {command('validate', memory_namespace=namespace)}",
        )
