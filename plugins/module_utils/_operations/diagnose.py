# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Find the cause: rank what the integrity scan, the access log and the application's own log lines say.

PRIVATE to the collection. A cause's confidence is the share of the damaged and suspect records that it explains; a
cause that explains records by circumstance only (an open rotation, error lines) is listed below those that count.
"""

from __future__ import annotations

import typing as t

from .._model import Window
from .access_log_review import BULK_WRITES, Review
from .commands import counted
from .incident import rfc3339
from .integrity_rows import RESERVED

# findings that are of one record each
DAMAGE = ("checksum", "unreadable", "unopenable", "key-missing", "absent", "silent-change", "changed")
NAMED = 5  # records of one finding
HARD_SHARE = 0.20  # above this share of damaged records a new generation is cheaper and safer than repairs in place


def windows(review: Review, *, epoch: int = 1, onset_sequence: int | None = None) -> list[Window]:
    """The writes to distrust: every burst without the write lock, by its actor; and all since a given onset."""
    found = [
        Window(
            cause="bulk-write" if burst.writes + burst.deletes >= BULK_WRITES else "unlocked-write",
            epoch=burst.epoch,
            first_sequence=burst.first_sequence,
            last_sequence=burst.last_sequence,
            actor=burst.actor,
        )
        for burst in review.unlocked
    ]
    if onset_sequence is not None:
        found.append(Window("given-onset", epoch, onset_sequence, 1 << 62, unlocked_only=False))
    return found


def diagnose(
    *,
    review: Review,
    findings: t.Mapping[str, int],
    rows: int,
    log_health: t.Mapping[str, t.Any],
    errors: t.Sequence[t.Mapping[str, t.Any]] = (),
    structure: t.Sequence[str] = (),
    deletions: t.Mapping[str, int] | None = None,
    ttl: float | None = None,
    examples: t.Sequence[t.Mapping[str, t.Any]] = (),
    logged: bool = True,
) -> dict[str, t.Any]:
    """``deletions``: {count, whole} of the application's spans. ``examples``: of integrity.scan. ``logged``:
    whether there is an access log.

    Returns {causes: [{cause, confidence, evidence}], onset, strategy, hit_rate}, causes by confidence.
    """
    distrusted = sum(b.writes + b.deletes for b in review.unlocked)
    damaged = sum(n for kind, n in findings.items() if kind in DAMAGE)
    total = damaged + distrusted
    causes: list[dict[str, t.Any]] = []

    def add(cause: str, explained: int, evidence: list[str]) -> None:
        if evidence:
            share = min(1.0, explained / total) if total else 0.0
            causes.append({"cause": cause, "confidence": round(share, 4), "explains": explained, "evidence": evidence})

    def named(kind: str) -> list[str]:
        """The first records of which that was found, by their keys, and what is wrong with each."""
        of_kind = [one for one in examples if one["kind"] == kind and not (one["key"] or RESERVED).startswith(RESERVED)]
        return [f"{one['key']}: {one['evidence']}" for one in of_kind[:NAMED]]

    storage = (
        [f"{counted(findings['checksum'], 'record')} whose bytes changed after they were written", *named("checksum")]
        if findings.get("checksum")
        else []
    )
    storage += [f"the engine reports: {line}" for line in list(structure)[:5]]
    storage += [_line(e) for e in errors if e["kind"] in ("storage", "corruption")]
    add("storage-failure", findings.get("checksum", 0), storage)
    if findings.get("absent"):
        gone = _are(findings["absent"], "record", "gone")
        said = f"{gone} and no deletion is logged" if logged else f"{gone}, deleted or lost: there is no log"
        add("lost-rows", findings["absent"], [said, *_deletions(deletions)])
    if findings.get("changed"):
        changed = findings["changed"]
        said = f"{_are(changed, 'record', 'other')} than before the window, or made inside it; no log says by whom"
        add("changed-in-window", changed, [said])
    if findings.get("silent-change"):
        silent = findings["silent-change"]
        said = f"{_are(silent, 'record', 'other')} than in the last good snapshot, and not by the application"
        add("silent-change", silent, [said])
    if findings.get("unreadable"):
        count = findings["unreadable"]
        add("unreadable-records", count, [
            f"{_are(count, 'record', 'listed')}, and the application cannot read what is listed", *named("unreadable")
        ])  # fmt: skip
    if findings.get("unopenable"):
        count = findings["unopenable"]
        add("misplaced-ciphertexts", count, [
            f"{_are(count, 'payload', 'intact')} but of another key or version", *named("unopenable")
        ])  # fmt: skip
    if findings.get("application-key"):
        count = findings["application-key"]
        add("application-key", 0, [
            f"no key of the application that is given opens {count} of its encrypted values", *named("application-key")
        ])  # fmt: skip
    rotation = [
        f"a rotation {what} began at {rfc3339(at)} and never ended" for what, at in review.rotations_open.items()
    ]
    missing = findings.get("key-missing", 0)
    if missing:
        rotation.append(f"{_are(missing, 'record', 'sealed')} by a record key that the keyring does not have")
    rotation += [_line(e) for e in errors if e["kind"] == "decryption"]
    add(
        "key-rotation" if review.rotations_open else "missing-record-key",
        missing,
        rotation if missing or review.rotations_open else [],
    )
    bulk = [b for b in review.unlocked if b.writes + b.deletes >= BULK_WRITES]
    add("bulk-write", sum(b.writes + b.deletes for b in bulk), [b.evidence() for b in bulk])
    loose = [b for b in review.unlocked if b not in bulk or b.interleaved]
    add("concurrent-writes-without-lock", sum(b.writes + b.deletes for b in loose), [b.evidence() for b in loose][:10])
    asked = sum(review.reads.values())
    if review.expired_reads and asked and review.expired_reads / asked > 0.2:
        add(
            "ttl-expiry-storm",
            0,
            [
                f"{review.expired_reads} of {asked} reads met an expired record; "
                f"new records live {'for ever' if ttl is None else f'{ttl} s'}"
            ],
        )
    if not log_health["intact"]:
        add(
            "damaged-access-log",
            0,
            [
                f"entries that are damaged: {log_health['corrupt']:,}, that are missing: {log_health['missing']:,}; "
                "what the log does not prove is suspect"
            ],
        )
    causes.sort(key=lambda cause: -cause["confidence"])
    return {
        "causes": causes,
        "onset": _onset(review, errors),
        "strategy": propose(findings, rows, structure),
        "hit_rate": {"before": review.hit_rate(), "samples": sum(review.reads.values()), "series": review.series},
    }


def propose(findings: t.Mapping[str, int], rows: int, structure: t.Sequence[str]) -> str:
    """hard when the engine's own structure is broken or much is damaged, soft otherwise, none when nothing is."""
    damaged = sum(n for kind, n in findings.items() if kind not in ("expired", "application-key"))
    broken = [line for line in structure if "index" not in line.lower()]
    if broken or (rows and damaged / rows > HARD_SHARE):
        return "hard"
    return "soft" if damaged or structure else "none"


def _onset(review: Review, errors: t.Sequence[t.Mapping[str, t.Any]]) -> dict[str, t.Any] | None:
    """The earliest trace of the damage; the sequence is exact where a write caused it."""
    first = review.unlocked[0] if review.unlocked else None
    times = [at for at in (review.first_corrupt, first.first_at if first else None) if at is not None]
    seen = [rfc3339(at) for at in times] + [str(e["first"]) for e in errors if e.get("first")]
    if not seen and not first:
        return None
    return {"at": min(s for s in seen if s), "sequence": first.first_sequence if first else None}


def _line(error: t.Mapping[str, t.Any]) -> str:
    what = error.get("what", "log lines")
    return f"{error['count']} {what} say {error['kind']} failure, for example: {error.get('sample', '')[:160]}"


def _deletions(seen: t.Mapping[str, int] | None) -> list[str]:
    if not seen or not seen["count"]:
        return []
    whole = f", {seen['whole']} of them of everything" if seen["whole"] else ""
    are = "is a deletion" if seen["count"] == 1 else "are deletions"
    return [f"{counted(seen['count'], 'span')} of the application {are}{whole}"]


def _are(count: int, noun: str, what: str) -> str:
    return f"{counted(count, noun)} {'is' if count == 1 else 'are'} {what}"
