# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the incident's report with the ground truth and with what the agent itself saw.

Every line is a claim that holds (✓) or does not (✗); a ✗ makes the demo fail.
"""
from __future__ import annotations

import datetime
import glob
import json
import os
import sqlite3
import subprocess
import sys
import typing as t
import urllib.parse

from ansible_collections.memops.agent_memory.plugins.module_utils.memory import (
    KeyUnavailable,
    Memory,
    MemoryOpsError,
    RecordCorrupt,
)

from . import memories, places
from .journal import Journal, lapsed

RATE_TOLERANCE = 0.02  # the agent's clock is read before and after a call, the store's in the middle of it
TIME_TOLERANCE = 1.0  # seconds
MILLISECOND = 1000  # µs; the report's times are cut to whole ones
SHOWN = 5
CLUSTER = "demo"  # as inventories/demo calls it


class Checks:
    """Prints the claims and counts those that do not hold."""

    def __init__(self, out: t.Callable[[str], None] = print) -> None:
        self.failed = 0
        self._out = out

    def claim(self, holds: bool, text: str, why: t.Any = None) -> None:
        self.failed += not holds
        self._out(f"  {'✓' if holds else '✗'} {text}" + ("" if holds or why is None else f": {why}"))

    def none(self, wrong: t.Sequence[t.Any], text: str) -> None:
        shown = ", ".join(str(one) for one in wrong[:SHOWN])
        self.claim(not wrong, text, f"{len(wrong)} are not, such as {shown}")

    def same(self, expected: t.Collection[str], found: t.Collection[str], text: str) -> None:
        missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        why = f"not in the report: {missing[:SHOWN]}; only in the report: {extra[:SHOWN]}"
        self.claim(not missing and not extra, text, why)


class Case:
    """All the evidence."""

    def __init__(
        self, report: dict[str, t.Any], report_dir: str, truth: dict[str, t.Any], journal: Journal, checks: Checks
    ) -> None:
        self.report, self.report_dir, self.truth, self.journal, self.checks = report, report_dir, truth, journal, checks
        self.details = report["details"]
        self.namespace: str = truth["namespace"]
        self.fenced = moment(self.details["fence"]["fenced_at"]) + MILLISECOND
        self.releasing = moment(self.step("release")["started"])
        self.released = moment(self.details["released_at"]) + MILLISECOND
        self.lost = {key for keys in truth["lost"].values() for key in keys}
        self.suspect = {*truth["kinds"]["imported_new"], *truth["kinds"]["imported_over"]}
        self.listed = {*lost_keys(report_dir, report), *self.details["suspect_keys"]}

    def step(self, name: str) -> dict[str, t.Any]:
        return next((one for one in self.report["steps"] if one["name"] == name), {})


def run(case: Case) -> None:
    """All checks that need nothing but the evidence."""
    verdict(case)
    ground_truth(case)
    quarantine(case)
    reads_after(case)
    others(case)
    numbers(case)


def verdict(case: Case) -> None:
    report = case.report
    case.checks.claim(
        report["verdict"] == "pass" and report["state"] == "closed",
        "the report's verdict is pass and the incident is closed",
        f"{report['verdict']}, {report['state']}: {[r['text'] for r in case.details['reasons']]}",
    )


def ground_truth(case: Case) -> None:
    checks, report, kinds = case.checks, case.report, case.truth["kinds"]
    repaired = [key for kind, keys in kinds.items() if not kind.startswith("imported") for key in keys]
    checks.same(case.lost, lost_keys(case.report_dir, report), f"lost are exactly the {len(case.lost)} without a copy")
    text = f"suspect are exactly the {len(case.suspect)} written without a lock"
    checks.same(case.suspect, case.details["suspect_keys"], text)
    found = {name: report["records"][name] for name in ("recovered", "lost", "suspect")}
    wanted = {"recovered": len(repaired), "lost": len(case.lost), "suspect": len(case.suspect)}
    checks.claim(found == wanted, f"{len(repaired)} damaged records were recovered, as many as were damaged", found)
    conflicts = case.details["conflict_keys"]
    checks.claim(
        report["records"]["conflicted"] == len(conflicts) == len(set(conflicts)),
        f"{len(conflicts)} conflicts of the failback are listed; the newer write won",
        report["records"]["conflicted"],
    )
    causes = {one["cause"] for one in report["causes"]}
    wanted_causes = {"storage-failure", "misplaced-ciphertexts", "lost-rows", "key-rotation", "bulk-write"}
    checks.claim(wanted_causes <= causes, "every way of the damage is among the causes", sorted(wanted_causes - causes))


def quarantine(case: Case) -> None:
    """From the fence to the failover (or release) nothing is served; nothing is written but to the secondary."""
    checks, journal = case.checks, case.journal
    failover = case.details["failover"]
    opened = case.releasing
    if failover["performed"]:
        opened = moment(case.step("failover")["started"])
    reads = list(journal.of(case.namespace, "read", case.fenced, opened))
    writes = list(journal.of(case.namespace, "write", case.fenced, opened))
    wrong = [f"{one['operation']} of {one['key']}: {one['result']}" for one in reads if one["result"] != "miss"]
    wrong += [f"{one['operation']} of {one['key']}: {one['result']}" for one in writes if one["result"] != "refused"]
    text = f"in quarantine all {len(reads)} reads missed and all {len(writes)} writes were refused"
    checks.claim(not wrong and bool(reads) and bool(writes), text, wrong[:SHOWN] or "the agent tried too little")
    if not failover["performed"]:
        return
    elsewhere = {
        (one["key"], one["sequence"])
        for one in journal.of(case.namespace, "write", opened, case.releasing)
        if one["result"] == "ok"
    }
    missing = sorted(elsewhere - written_to(places.SECONDARY, case.namespace))
    checks.claim(
        not missing and bool(elsewhere), f"{len(elsewhere)} writes went to the secondary meanwhile", missing[:SHOWN]
    )


def reads_after(case: Case) -> None:
    """No wrong value after the fence. While the secondary serves, it may know no more than the last backup."""
    fenced = list(case.journal.of(case.namespace, "read", case.fenced))
    never = ("foreign", "corrupt", "error")
    wrong = [f"{one['key']} ({word})" for one in fenced if (word := case.journal.verdict(one)) in never]
    case.checks.none(wrong, f"none of {len(fenced):,} reads after the fence gave what the agent had not written")
    released = list(case.journal.of(case.namespace, "read", case.released))
    wrong = [
        f"{one['key']} ({word})"
        for one in released
        if (word := case.journal.verdict(one)) not in ("right", "expired") and one["key"] not in case.listed
    ]
    case.checks.none(wrong, f"each of {len(released):,} reads after the release was right, or its key is listed")


def others(case: Case) -> None:
    for namespace in places.NAMESPACES:
        if namespace == case.namespace:
            continue
        lines = list(case.journal.of(namespace))
        disturbed = [one for one in lines if _disturbed(case.journal, one)]
        wrong = [f"{one['operation']} of {one['key']}: {one['result']}" for one in disturbed]
        case.checks.none(wrong, f"{namespace} noticed nothing: {len(lines):,} operations, no refusal, nothing wrong")


def _disturbed(journal: Journal, line: t.Mapping[str, t.Any]) -> bool:
    if line["operation"] == "read":
        return journal.verdict(dict(line)) not in ("right", "expired")
    return bool(line["result"] != "ok")


def numbers(case: Case) -> None:
    """The report's figures against the agent's own."""
    checks, report, journal = case.checks, case.report, case.journal
    onset = moment(case.details["onset"]["at"]) // 1_000_000 * 1_000_000  # the log's series has whole seconds
    watched = case.step("monitor")
    end = moment(watched["started"]) + int(watched["seconds"] * 1e6)
    for name, since, until in (("before", onset, case.fenced), ("after", case.released, end)):
        own, reads = hit_rate(journal, case.namespace, since, until)
        told = report["hit_rate"][name]
        near = told is not None and own is not None and own[0] - RATE_TOLERANCE <= told <= own[1] + RATE_TOLERANCE
        shown = "unknown" if own is None else f"{own[1]:.1%}"
        checks.claim(near, f"hit rate {name}: {shown} of the agent's {reads:,} reads, as the report says", told)
    first = next(
        (one for one in journal.of(case.namespace, "write", case.fenced) if one["result"] == "ok"), None
    )
    started = min(moment(one["started"]) for one in report["steps"])
    own_rto = None if first is None else (first["ended"] - started) / 1e6
    told = report["rto_seconds"]
    near = told is not None and own_rto is not None and abs(told - own_rto) <= TIME_TOLERANCE
    shown = "unknown" if own_rto is None else f"{own_rto:.1f} s"
    checks.claim(near, f"time to the first accepted write: {shown} for the agent, as the report says", told)


def hit_rate(
    journal: Journal, namespace: str, since: int, until: int
) -> tuple[tuple[float, float] | None, int]:
    """Hits among hits, misses and corrupt reads, and how many these are.

    The lower rate counts the reads of what had expired as misses, the higher one not at all: the access log tells them
    apart only until the record is swept.
    """
    hits = asked = expired = 0
    for line in journal.of(namespace, "read", since, until):
        newest = journal.newest(namespace, line["key"], line["begun"])
        if line["result"] == "miss" and lapsed(newest, line["begun"], line["ended"]) != "no":
            expired += 1
            continue
        asked += 1
        hits += line["result"] == "hit"
    return ((hits / (asked + expired), hits / asked) if asked else None), asked


# --- what only the stores can say -----------------------------------------------------------------------------------
def stores(case: Case) -> None:
    """Everything that was ever acknowledged, read again by a fresh ``Memory``."""
    checks = case.checks
    with Memory(route=places.ROUTE, keyring=places.keyring(), actor="demo-check", create=False) as memory:
        for namespace in places.NAMESPACES:
            keys = [key for space, key in case.journal.writes if space == namespace]
            wrong, listed = _compare(case, memory, namespace, keys)
            text = f"{namespace}: {len(keys) - listed:,} acknowledged memories have their newest value"
            checks.none(wrong, text + (f", {listed} are listed as lost or suspect" if listed else ""))
        imported = memory.read_many(case.namespace, case.truth["kinds"]["imported_new"])
        checks.none(sorted(imported), "nothing of the legacy import is served")
    found = integrity_check(places.PRIMARY)
    checks.claim(found == ["ok"], "SQLite's own integrity check of the primary says ok", found[:SHOWN])


def _compare(case: Case, memory: Memory, namespace: str, keys: t.Sequence[str]) -> tuple[list[str], int]:
    wrong: list[str] = []
    listed = 0
    for start in range(0, len(keys), 1000):
        part = keys[start : start + 1000]
        begun = now()
        try:
            values = memory.read_many(namespace, part, skip_damaged=True)
        except (RecordCorrupt, KeyUnavailable, MemoryOpsError) as exc:
            return [str(exc)], listed
        ended = now()
        for key in part:
            newest = case.journal.newest(namespace, key)
            got = memories.digest(values[key]) if key in values else None
            wanted = newest.digest if newest else None
            expired = lapsed(newest, begun, ended)
            if (got == wanted and expired != "yes") or (got is None and expired != "no"):
                continue
            if namespace == case.namespace and key in case.lost | case.suspect and key in case.listed:
                listed += 1
                continue
            wrong.append(f"{key} ({'absent' if got is None else 'another value'})")
    return wrong, listed


def decoder(case: Case, repository: t.Mapping[str, t.Any]) -> None:
    """The new baseline, decoded by a script that shares no code with the collection, against store and journal."""
    checks, baseline = case.checks, case.report["snapshots"]["baseline"]
    values = places.at("tmp", "decoded.jsonl")
    directory = fetched(repository)
    done = subprocess.run(
        [
            sys.executable, os.path.join(places.REPO, "tests", "decoder", "decode_snapshot.py"), directory,
            CLUSTER, places.at("master.key"), "--snapshot", baseline, "--store", places.PRIMARY, "--jsonl", values,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not done.stdout.startswith("{"):
        checks.claim(False, "an independent decoder reads the new baseline", done.stderr.strip()[-300:])
        return
    found = json.loads(done.stdout)["namespaces"][case.namespace]
    told = f"an independent decoder reads the {found['records']:,} records of the new baseline as its manifest says"
    checks.claim(not found["wrong"] and not found["damaged"] and not found["unopenable"], told, found["wrong"])
    begun = moment(case.step("baseline")["started"])
    writes = {key: made[-1] for (space, key), made in case.journal.writes.items() if space == case.namespace}
    changed = {key for key, last in writes.items() if last.ended >= begun or lapsed(last, now(), now()) != "no"}
    since = [key for key in found["differing"] if key not in changed]
    checks.none(since, "what it reads is what the store holds, but for what changed or expired since")
    wrong = []
    with open(values, encoding="ascii") as file:
        for line in file:
            one = json.loads(line)
            known = writes.get(one["key"])
            if known is None or one["key"] in changed | case.lost:
                continue
            digest = None if one["value"] is None else memories.digest(one["value"])
            if digest != known.digest:
                wrong.append(one["key"])
    os.unlink(values)
    checks.none(wrong, "the values that it decodes are those that the agent was told are safe")


def fetched(repository: t.Mapping[str, t.Any]) -> str:
    """The repository as a directory: itself, or a copy of the bucket that outlives the demo's S3 server."""
    url = urllib.parse.urlsplit(str(repository["url"]))
    if url.scheme == "file":
        return url.path
    target = places.at("bucket")
    if not os.path.isdir(target):
        download(repository, target)
    return target


def download(repository: t.Mapping[str, t.Any], target: str) -> None:
    """Every object of a repository in S3 as a file below ``target``."""
    import boto3

    client = boto3.client(
        "s3", endpoint_url=repository["endpoint_url"], region_name=repository["region"],
        aws_access_key_id=repository["access_key"], aws_secret_access_key=repository["secret_key"],
    )  # fmt: skip
    url = urllib.parse.urlsplit(str(repository["url"]))
    prefix = url.path.strip("/") + "/"
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=url.netloc, Prefix=prefix):
        for entry in page.get("Contents", []):
            path = os.path.join(target, *entry["Key"][len(prefix) :].split("/"))
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            client.download_file(url.netloc, entry["Key"], path)


def secrets(case: Case, words: t.Sequence[str]) -> None:
    """Neither content nor secrets lie open in what the demo stored or said."""
    planted = [word.encode() for word in words if word]
    found = []
    for folder, _folders, files in os.walk(places.HOME):
        for name in files:
            path = os.path.join(folder, name)
            if os.path.relpath(path, places.HOME) in ALLOWED:
                continue
            with open(path, "rb") as file:
                content = file.read()
            if any(word in content for word in planted):
                found.append(os.path.relpath(path, places.HOME))
    case.checks.none(found, "no memory's text and no secret lies open in stores, snapshots, logs or reports")


#: Where secrets belong, all with mode 0600.
ALLOWED = ("master.key", "vars.yml", os.path.join("s3", "s3.json"))


def integrity_check(path: str) -> list[str]:
    with _read_only(path) as con:
        return [row[0] for row in con.execute("PRAGMA integrity_check(5)")]


def written_to(path: str, namespace: str) -> set[tuple[str, int]]:
    """(key, sequence) of the agent's logged writes in a store file."""
    with _read_only(path) as con:
        return set(
            con.execute(
                "SELECT key, sequence FROM memory_access_log WHERE namespace = ? AND operation = 'write' AND actor = ?",
                (namespace, places.ACTOR),
            )
        )


class _read_only:
    def __init__(self, path: str) -> None:
        self._con = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10.0)

    def __enter__(self) -> sqlite3.Connection:
        return self._con

    def __exit__(self, *exc: object) -> None:
        self._con.close()


# --- reading the evidence ---------------------------------------------------------------------------------------------
def newest_report() -> str:
    """The folder of the newest report. Errors: FileNotFoundError."""
    found = glob.glob(os.path.join(places.REPORTS, "*", "report.json"))
    if not found:
        raise FileNotFoundError(f"There is no report in {places.REPORTS}.")
    return os.path.dirname(max(found, key=os.path.getmtime))


def lost_keys(report_dir: str, report: t.Mapping[str, t.Any]) -> set[str]:
    """The report's first 1,000 and those of lost_keys.jsonl."""
    keys = set(report["lost_keys"])
    path = os.path.join(report_dir, "lost_keys.jsonl")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for line in file:
                one = json.loads(line)
                keys.add(one["key"] if isinstance(one, dict) else one)
    return keys


def moment(text: str) -> int:
    """µs since 1970 of an RFC 3339 time."""
    return round(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1e6)


def now() -> int:
    return int(datetime.datetime.now(datetime.timezone.utc).timestamp() * 1e6)


def load(checks: Checks) -> Case:
    folder = newest_report()
    with open(os.path.join(folder, "report.json"), encoding="utf-8") as file:
        report = json.load(file)
    with open(places.TRUTH, encoding="utf-8") as file:
        truth = json.load(file)
    return Case(report, folder, truth, Journal.read(places.AGENT_JOURNAL), checks)


def everything(repository: t.Mapping[str, t.Any], secret_words: t.Sequence[str]) -> int:
    """Print all claims; how many do not hold."""
    checks = Checks()
    try:
        case = load(checks)
    except (OSError, ValueError) as exc:
        checks.claim(False, "the run left a report", exc)
        return checks.failed
    parts: list[t.Callable[[], None]] = [
        lambda: run(case),
        lambda: stores(case),
        lambda: decoder(case, repository),
        lambda: secrets(case, secret_words),
    ]
    for part in parts:
        try:
            part()
        except Exception as exc:  # a check that cannot be made is one that failed; the others are made all the same
            checks.claim(False, "the evidence is complete", f"{type(exc).__name__}: {exc}")
    return checks.failed
