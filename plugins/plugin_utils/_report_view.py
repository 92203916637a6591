# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The geometry of the report's drawings: where a bar, a cell, a point lies. No markup.

PRIVATE to the collection.
"""

from __future__ import annotations

import bisect
import math
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._words import counted

from . import _report_input as given
from . import _report_words as words

MAP_COLUMNS = 50
CURVE_WIDTH, CURVE_HEIGHT = 1000.0, 200.0
RESERVED = "\0memops/"  # the canary and its like; they sort before every ordinary key
_IDLE = 60.0  # a pause longer than this is drawn as a break


class Scale:
    """Maps time to 0..100. An interval between two events is as wide as the square root of its length, so that a step
    of a second stays visible beside a watch of a quarter of an hour; the order is always true."""

    def __init__(self, points: t.Iterable[float], busy: t.Sequence[t.Tuple[float, float]]) -> None:
        self.points = sorted(set(points))
        self.breaks: t.List[t.Tuple[float, float]] = []
        weights = []
        for first, last in zip(self.points, self.points[1:]):
            weight = math.sqrt(last - first)
            if last - first > _IDLE and not any(b < last and e > first for b, e in busy):
                self.breaks.append((first, last))
                weight = min(weight, math.sqrt(_IDLE))
            weights.append(weight)
        total = sum(weights) or 1.0
        self.places = [0.0]
        for weight in weights:
            self.places.append(self.places[-1] + 100.0 * weight / total)

    def __call__(self, at: float) -> float:
        if not self.points or at <= self.points[0]:
            return 0.0
        if at >= self.points[-1]:
            return 100.0
        i = bisect.bisect_right(self.points, at) - 1
        part = (at - self.points[i]) / (self.points[i + 1] - self.points[i])
        return self.places[i] + part * (self.places[i + 1] - self.places[i])

    def ticks(self, apart: float = 11.0) -> t.List[t.Dict[str, t.Any]]:
        found: t.List[t.Dict[str, t.Any]] = []
        for at, place in zip(self.points, self.places):
            clear = not found or (
                place - found[-1]["x"] >= apart * (1.5 if len(found) == 1 else 1) and _clock(at) != found[-1]["text"]
            )
            if clear and place <= 100 - apart:
                found.append({"x": place, "text": _clock(at)})
        if self.points:
            found.append({"x": 100.0, "text": _clock(self.points[-1])})
        return found


def _seconds(value: t.Any) -> t.Optional[float]:
    found = given.moment(value)
    return None if found is None else found.timestamp()


def _clock(at: float) -> str:
    return words.clock(int(at * 1_000_000))


def timeline(report: t.Mapping[str, t.Any]) -> t.Optional[t.Dict[str, t.Any]]:
    """Rows of bars, one per step, on one scale, with the quarantine; None when no step has a time."""
    bars = []
    for item in report["details"]["timeline"]:
        start = _seconds(item["started"])
        if start is not None:
            bars.append((item, start, start + min(item["seconds"] or 0.0, 1e8)))
    if not bars:
        return None
    first, last = min(b[1] for b in bars), max(b[2] for b in bars)
    fenced = []
    for item in report["details"]["quarantine"]:
        begin, end = _seconds(item["from"]), _seconds(item["to"])
        if begin is not None:
            fenced.append(
                (min(max(begin, first), last), min(max(end, first), last) if end is not None else last, end is None)
            )
    points = [p for b in bars for p in b[1:]] + [p for q in fenced for p in q[:2]]
    scale = Scale(points, [(b[1], b[2]) for b in bars])
    rows: t.Dict[str, t.Dict[str, t.Any]] = {}
    for item, begin, end in bars:
        row = rows.setdefault(item["name"], {"name": item["name"], "label": words.label(item["name"]), "bars": []})
        x = min(scale(begin), 99.2)
        row["bars"].append(
            {
                "x": x,
                "w": max(scale(end) - x, 0.8),
                "verdict": item["verdict"],
                "counts": item["counts"],
                "title": _bar_title(item),
            }
        )
        if item["counts"]:
            row["verdict"], row["time"] = item["verdict"], words.span(item["seconds"])
    starts: t.Dict[int, float] = {}
    for item, begin, _end in bars:
        starts.setdefault(item["attempt"], begin)
    return {
        "rows": list(rows.values()),
        "replaced": any(not item["counts"] for item, _begin, _end in bars),
        "quarantine": [
            {
                "x": scale(a),
                "w": max(scale(b) - scale(a), 0.3),
                "open": o,
                "title": f"quarantine from {_clock(a)} " + ("on" if o else f"to {_clock(b)}"),
            }
            for a, b, o in fenced
        ],
        "attempts": [{"x": scale(at), "number": n} for n, at in starts.items()] if len(starts) > 1 else [],
        "breaks": [{"x": (scale(a) + scale(b)) / 2, "text": words.span(b - a)} for a, b in scale.breaks],
        "ticks": scale.ticks(),
        "day": words.clock(int(first * 1_000_000), date=True)[:10],
        "total": words.span(last - first),
    }


def _bar_title(item: t.Mapping[str, t.Any]) -> str:
    name = words.label(item["name"])
    old = "" if item["counts"] else " (replaced by a newer result)"
    return (
        f"{name}: {item['verdict']}, {words.clock(item['started'])}, {words.span(item['seconds'])}, "
        f"attempt {item['attempt']}{old}"
    )


def damage(report: t.Mapping[str, t.Any]) -> t.Optional[t.Dict[str, t.Any]]:
    """The key space as cells in key order; lost keys fall into the cell that their place in the order names."""
    # a cell with nothing but keys of the collection's own says nothing of the memories
    buckets = [b for b in report["details"]["damage_map"] if not (b["last_key"] or "").startswith(RESERVED)]
    if not buckets:
        return None
    firsts = [b["first_key"] for b in buckets]
    lost = [b["lost"] or 0 for b in buckets]
    said = any(b["lost"] is not None for b in buckets)
    if not said and firsts == sorted(firsts):
        for key in report["lost_keys"]:
            lost[max(0, bisect.bisect_right(firsts, key) - 1)] += 1
    cells = []
    for i, bucket in enumerate(buckets):
        rows = bucket["rows"] or 0
        bad, suspect = bucket["damaged"], bucket["suspect"]
        # a lost key may have no row any more, so that a bucket can hold more damage than rows
        share = min(1.0, (bad or 0) / max(rows, 1)) if bad else 0.0
        title = (
            f"{words.shown(bucket['first_key'], 60)} to {words.shown(bucket['last_key'], 60)}: "
            f"{words.UNKNOWN if bucket['rows'] is None else counted(bucket['rows'], 'row')}, "
            f"{words.amount(bad)} damaged or gone, {words.amount(suspect)} suspect"
        )
        if lost[i]:
            title += f", {lost[i]:,} lost"
        cells.append(
            {
                "x": i % MAP_COLUMNS * 20,
                "y": i // MAP_COLUMNS * 20,
                # at least 3 of 18 units, by the root of the share: one bad record in a thousand can be seen
                "h": max(3.0, 18 * math.sqrt(share)) if share else 0.0,
                "suspect": bool(suspect),
                "lost": lost[i],
                "title": title,
                "damaged": bad,
                "rows": bucket["rows"],
                "suspects": suspect,
                "first": bucket["first_key"],
                "last": bucket["last_key"],
            }
        )
    worst = sorted(
        (c for c in cells if c["damaged"] or c["suspect"] or c["lost"]),
        key=lambda c: (-c["lost"], -(c["damaged"] or 0), -(c["suspects"] or 0)),
    )
    return {
        "cells": cells,
        "worst": worst[:20],
        "touched": len(worst),
        "width": min(len(cells), MAP_COLUMNS) * 20 - 2,
        "height": (len(cells) - 1) // MAP_COLUMNS * 20 + 18,
        "first": buckets[0]["first_key"],
        "last": buckets[-1]["last_key"],
        "unplaced": not said and (report["records"]["lost"] or 0) > len(report["lost_keys"]),
    }


def curve(report: t.Mapping[str, t.Any]) -> t.Optional[t.Dict[str, t.Any]]:
    """Hit rate over time: pieces of line, broken where no sample is; None without a sample that has reads."""
    samples = []
    for item in report["details"]["hit_series"]:
        at = _seconds(item["at"])
        reads = sum(item[k] or 0 for k in ("hits", "misses", "corrupt"))
        if at is not None and reads:
            samples.append((at, (item["hits"] or 0) / reads, reads))
    if not samples:
        return None
    samples.sort()
    fence = [(_seconds(q["from"]), _seconds(q["to"])) for q in report["details"]["quarantine"]]
    fenced = [(a, b if b is not None else max(a, samples[-1][0])) for a, b in fence if a is not None]
    points = [s[0] for s in samples] + [p for q in fenced for p in q]
    gaps = sorted(b[0] - a[0] for a, b in zip(samples, samples[1:]))
    usual = max(gaps[len(gaps) // 2] * 4, 5.0) if gaps else _IDLE
    whole = max(points) - min(points) or 1.0
    scale = Scale(points, [(a[0], b[0]) for a, b in zip(samples, samples[1:])])
    low = min([s[1] for s in samples] + [report["details"]["targets"]["hit_rate"] or 1.0])
    floor: float = max(0.0, math.floor((low - 0.02) * 5) / 5)  # grid lines then fall on multiples of 5 %

    def y(rate: float) -> float:
        return round(CURVE_HEIGHT * (1 - (rate - floor) / (1 - floor)), 1)

    pieces: t.List[t.List[t.Tuple[float, float]]] = []
    before: t.Optional[float] = None
    for at, rate, _reads in samples:
        crossed = before is not None and any(before < a < at or before < b < at for a, b in fenced)
        if before is None or at - before > usual or crossed:
            pieces.append([])
        pieces[-1].append((round(scale(at) * CURVE_WIDTH / 100, 1), y(rate)))
        before = at
    slo = report["details"]["targets"]["hit_rate"]
    grid = [floor + i * (1 - floor) / 4 for i in range(5)]
    return {
        "width": CURVE_WIDTH,
        "height": CURVE_HEIGHT,
        "lines": [f"M{_path(p)}" + (" h0" if len(p) == 1 else "") for p in pieces],
        "areas": [f"M{p[0][0]} {CURVE_HEIGHT} L{_path(p)} L{p[-1][0]} {CURVE_HEIGHT}Z" for p in pieces if len(p) > 1],
        "slo": None if slo is None else {"y": y(slo), "top": 100 * y(slo) / CURVE_HEIGHT, "text": words.percent(slo)},
        "grid": [{"y": y(g), "top": 100 * y(g) / CURVE_HEIGHT, "text": words.percent(g, 0)} for g in grid],
        "quarantine": [
            {
                "x": scale(a) * CURVE_WIDTH / 100,
                "w": max((scale(b) - scale(a)) * CURVE_WIDTH / 100, 2.0),
                "left": scale(a),
            }
            for a, b in fenced
        ],
        "onset": _onset(report, scale, points),
        "ticks": scale.ticks(14.0),
        "title": f"{len(samples):,} sample{'' if len(samples) == 1 else 's'} over {words.span(whole)}; "
        f"lowest {words.percent(min(s[1] for s in samples))}, last {words.percent(samples[-1][1])}",
    }


def _path(points: t.Sequence[t.Tuple[float, float]]) -> str:
    return " L".join(f"{x} {y}" for x, y in points)


def _onset(report: t.Mapping[str, t.Any], scale: Scale, points: t.Sequence[float]) -> t.Optional[t.Dict[str, float]]:
    at = _seconds(report["details"]["onset"]["at"])
    if at is None or not min(points) <= at <= max(points):
        return None
    return {"x": scale(at) * CURVE_WIDTH / 100, "left": scale(at)}


def plan_bar(report: t.Mapping[str, t.Any]) -> t.List[t.Dict[str, t.Any]]:
    """Parts of the expected records: kept, to be repaired, suspect, in conflict, lost. Unknown parts are left out."""
    records = report["records"]
    damaged, lost = records["damaged"], records["lost"]
    repaired = records["recovered"]
    kind = "recovered"
    if repaired is None and damaged is not None:
        repaired, kind = max(0, damaged - (lost or 0)), "damaged, not yet recovered"
    planned_conflicts = records["conflicted"]
    if planned_conflicts is not None:  # those of the failback are records that were kept or repaired
        planned_conflicts -= report["details"]["failback"]["conflicts"] or 0
    parts = [
        ("good", "kept as they are", records["good_before"]),
        ("repair", kind, repaired),
        ("suspect", "suspect, kept aside", records["suspect"]),
        ("conflict", "in conflict (plan)", planned_conflicts or None),
        ("lost", "lost", lost),
    ]
    known = [(k, w, n) for k, w, n in parts if n is not None]
    total = sum(n for _k, _w, n in known)
    if not total:
        return []
    # the thinnest part stays visible
    widths = [max(100.0 * n / total, 0.6) if n else 0.0 for _k, _w, n in known]
    stretch = 100.0 / sum(widths)
    found, x = [], 0.0
    for (part, what, n), width in zip(known, widths):
        found.append(
            {"kind": part, "what": what, "n": n, "x": x, "w": width * stretch, "share": words.percent(n / total, 2)}
        )
        x += width * stretch
    return found
