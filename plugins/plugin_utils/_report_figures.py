# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of report.json: targets, loss, hit rate, accuracy, recovery time and recovery point.

PRIVATE to the collection. What no step has said is None.
"""

from __future__ import annotations

import contextlib
import json
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._words import counted

from . import _report_input as given
from . import _report_parts as parts
from ._report_run import Run

KEYS_SHOWN = 1000
#: Fewer reads than this say nothing about a hit rate.
ENOUGH_READS = 100
CLOCKS = 30.0  # seconds by which clocks may differ without a word
DEFAULTS = {"hit_rate": 0.80, "max_loss": 0.10, "rto": 1800.0, "rpo": 900.0}


def targets(slo: t.Optional[t.Mapping[str, t.Any]]) -> t.Tuple[t.Dict[str, t.Optional[float]], t.List[str]]:
    wanted = {**DEFAULTS, **{k: v for k, v in given.mapping(slo).items() if v is not None}}
    found: t.Dict[str, t.Optional[float]] = {
        "rto_seconds": given.duration(wanted["rto"]),
        "rpo_seconds": given.duration(wanted["rpo"]),
    }
    for name in ("hit_rate", "max_loss"):
        value = wanted[name]
        if isinstance(value, str):  # -e makes strings
            with contextlib.suppress(ValueError):
                value = float(value)
        found[name] = given.ratio(value)
    return found, [f"memory_slo: {name} is not usable" for name, value in found.items() if value is None]


def loss(run: Run) -> t.Tuple[t.Dict[str, t.Optional[int]], t.List[str], t.Optional[float]]:
    plan, apply = run.homecoming if run.whole else run.result("plan"), run.result("apply")
    planned = given.mapping(plan.get("records"))
    keys = [k if isinstance(k, str) else json.dumps(k, default=str) for k in given.sequence(plan.get("lost_keys"))]
    told = [planned.get("lost"), plan.get("lost_total"), plan.get("lost") if run.whole else None]
    if run.whole and not run.result("failover").get("forced") and (run.passed("failover") or run.passed("failback")):
        told.append(0)  # everything was applied before the promotion
    known = [n for n in map(given.count, told) if n is not None]
    lost = max(known + [len(keys)]) if known or keys else None
    if run.whole and plan.get("untold") is True:
        lost = None
    away = given.count(run.result("failback").get("lost")) if not run.whole else None
    if away:  # the secondary acknowledged them, and its copy was damaged
        lost = (lost or 0) + away
        keys += [key for key in given.sequence(run.result("failback").get("lost_keys")) if isinstance(key, str)]
    names = ("expected", "good_before", "damaged", "suspect", "conflicted")
    records = {name: given.count(planned.get(name)) for name in names}
    home = given.count(run.result("failback").get("conflicts"))
    if home is not None:
        records["conflicted"] = (records["conflicted"] or 0) + home
    repaired = given.count(apply.get("recovered"))
    records["recovered"] = repaired if repaired is not None else given.count(planned.get("repair"))
    if not run.passed("apply"):
        records["recovered"] = None  # planned is not recovered
    records["lost"] = lost
    expected = records["expected"]
    return records, keys[:KEYS_SHOWN], lost / expected if lost is not None and expected else None


def hit_rate(run: Run) -> t.Dict[str, t.Any]:
    before = given.mapping(run.result("diagnose").get("hit_rate"))
    rate, reads = given.ratio(before.get("before")), given.count(before.get("samples"))
    if reads is not None and reads < ENOUGH_READS:
        rate = None
    watched = given.mapping(run.result("monitor").get("hit_rate"))  # the sum of the watch, when it says so itself
    samples = [watched] if watched else run.result("monitor").get("samples")
    samples = [
        {k: given.count(given.mapping(s).get(k)) for k in ("hits", "misses", "corrupt")}
        for s in given.sequence(samples)
    ]
    hits = sum(s["hits"] or 0 for s in samples)
    total = hits + sum((s["misses"] or 0) + (s["corrupt"] or 0) for s in samples)
    after = hits / total if total >= ENOUGH_READS else None if total else given.ratio(watched.get("value"))
    name = given.text(watched.get("source")) or "access log"  # of the rate after; the one before is always from there
    if name not in ("access log", "probes"):  # who was asked instead says how many it is of, or does not
        after, total = given.ratio(watched.get("value")), given.count(watched.get("reads")) or 0
    onset = given.mapping(run.result("diagnose").get("onset")).get("at")
    since = " (the rate before is that since the onset)" if rate is not None and given.moment(onset) else ""
    later = f"{counted(total, 'read')} after release" if total or name == "access log" else "after release"
    told = reads is not None and (reads > 0 or name == "access log")
    said = [f"access log: {counted(reads or 0, 'read')} before the fence{since}"] if told else []
    if samples:
        said.append(later if said and name == "access log" else f"{name}: {later}")
    return {"before": rate, "after": after, "source": " and ".join(said) or None}


def accuracy(run: Run) -> t.Dict[str, t.Optional[float]]:
    bench = parts.benchmark(run.result("validate"))
    return {"baseline": bench["baseline"], "after": bench["after"]}


def first_write(run: Run) -> t.Any:
    """When applications could write again: on the secondary, where one took over, else after the release."""
    told = (run.result(name).get("first_write_at") for name in ("release", "monitor"))
    return next((value for value in told if given.rfc3339(value)), None)


def objectives(run: Run) -> t.Tuple[t.Optional[float], t.Optional[float], t.List[str]]:
    """Recovery time and recovery point in seconds; what contradicts itself is said, not shown."""
    notes: t.List[str] = []
    layout = given.text(given.mapping(run.result("preflight").get("store")).get("layout"))
    unlogged = layout is not None and layout != "native"
    back = first_write(run)
    if back is None and unlogged and run.passed("release"):
        back = run.result("release").get("released_at")
        notes.append("Without an access log nobody knows the first write: the time to recovery ends with the release")
    rto = given.between(next((s.started for s in run.history if s.started), None), back)
    apart = _clocks_apart(run)
    if rto is not None and apart:
        rto -= apart
        notes.append(
            f"The clock of the memory host is {abs(apart):,.0f} s {'ahead of' if apart > 0 else 'behind'} the "
            "controller's; the time to recovery takes that into account"
        )
    if rto is not None and rto < 0:
        notes.append("The first write after release is dated before the start of the run: the clocks disagree")
        rto = None
    told = (run.result(name).get("newest_recovered_at") for name in ("failback", "apply", "plan"))
    newest = next((value for value in told if value), None)
    rpo = given.between(newest, parts.fence(run)["fenced_at"])
    if rpo is not None:
        if unlogged:
            notes.append("Without an access log the recovery point is the newest snapshot that repairs came from")
        rpo = max(0.0, rpo)  # a copy that went on after the fence lost no time
    return rto, rpo, notes


def _clocks_apart(run: Run) -> float:
    """Seconds by which the host's clock is ahead, told by a fence that was raised while its step ran; 0: too few."""
    step = next((s for s in reversed(run.history) if s.name == "isolate" and s.changed), None)
    after = None if step is None else given.between(step.started, step.result.get("fenced_at"))
    if step is None or after is None or -CLOCKS <= after <= (step.seconds or 0.0) + CLOCKS:
        return 0.0
    return after if after < 0 else after - (step.seconds or 0.0)
