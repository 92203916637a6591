# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Random histories, random damage, the whole runbook: what is served afterwards is what a model says.

MEMOPS_REBUILD_EXAMPLES sets the number of examples (default: as many as take well under a minute); a failure prints
what reproduces it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import apply
from tests.unit.operations.runbook import COLUMNS, NS, OTHER, Site, attempt, forge_checksum

EXAMPLES = int(os.environ.get("MEMOPS_REBUILD_EXAMPLES", "80"))
# Shrinking a failure takes minutes: only with MEMOPS_REBUILD_SHRINK; else the example is printed as it is.
PHASES = (Phase.explicit, Phase.generate, *((Phase.shrink,) if "MEMOPS_REBUILD_SHRINK" in os.environ else ()))
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # thousands of small durable writes
CANARY = "\0memops/canary"
KEYS = (
    "plain", "with/slash", "\0nul", "nul\0inside", "new\nline", " ", "ключ", "\U0001f9e0", "a", "a\0", "a/b", "\uffff",
    "\U0010ffff", "e\u0301", "\xe9", "'; DROP TABLE memory_records; --", "%", "_" * 300,
)  # fmt: skip
INTEGERS = ("epoch", "sequence", "created", "updated", "expires", "deleted")
ODD = (-1, 0, 2**63 - 1, "text", 1.5, b"\xff\xfe")


@dataclass
class Version:
    """One write or deletion of one key."""

    value: object  # None: a deletion
    trusted: bool  # locked and logged
    lives: bool = True  # False: it has expired
    row: tuple = ()


@dataclass
class Model:
    history: dict[str, list[Version]] = field(default_factory=dict)
    copies: list[dict[str, Version]] = field(default_factory=list)  # of each good snapshot, oldest first
    live: dict[str, Version] = field(default_factory=dict)  # what lies there intact
    broken: set[str] = field(default_factory=set)  # keys whose row lies there damaged
    touched: set[str] = field(default_factory=set)
    relaxed: set[str] = field(default_factory=set)  # keys whose log entries were damaged
    mislaid: bool = False

    def wrote(self, key, version):
        self.history.setdefault(key, []).append(version)
        self.live[key] = version

    def acknowledged(self, key):
        """The newest version that a locked, logged write or deletion made."""
        return next((v for v in reversed(self.history.get(key, [])) if v.trusted), None)

    def has(self, version, key):
        return any(copy.get(key) is version for copy in self.copies)

    def older(self, key):
        """Values of good copies in snapshots, newest first, up to the last deletion or known expiry."""
        found = []
        for version in reversed(self.history.get(key, [])):
            if version.trusted and (version.value is None or (not version.lives and self.has(version, key))):
                break
            if version.trusted and version.lives and self.has(version, key):
                found.append(version.value)
        return found


# --- damage -----------------------------------------------------------------------------------------------------
def flip_payload(site, model, key, other, n):
    damage_row(site, model, key, lambda row: {"payload": _flipped(row[8], n)})


def flip_checksum(site, model, key, other, n):
    damage_row(site, model, key, lambda row: {"checksum": _flipped(row[9], n)})


def odd_metadata(site, model, key, other, n):
    """A field with another value, or a value of a wrong type."""
    names = (*INTEGERS, "key_id", "payload", "checksum")
    name, value = names[n % len(names)], ODD[n // len(names) % len(ODD)]
    damage_row(site, model, key, lambda row: {name: value} if row[COLUMNS.split(", ").index(name)] != value else None)


def forged_metadata(site, model, key, other, n):
    """A field with another value and a checksum that fits: only the encryption tells."""
    name = INTEGERS[n % len(INTEGERS)]
    damage_row(site, model, key, lambda row: {name: (row[COLUMNS.split(", ").index(name)] or 0) + 1 + n}, forge=True)


def damage_row(site, model, key, change, forge=False):
    if key not in model.live or key in model.broken:
        return
    row, generation = site.rows()[key], site.generation()
    columns = change(row)
    if not columns:
        return
    with site.sql() as con:
        for name, value in columns.items():
            con.execute(
                f"UPDATE memory_records SET {name} = ? WHERE generation = ? AND key = ?", (value, generation, key)
            )
        if forge:
            forge_checksum(con, key, generation)
    del model.live[key]
    model.broken.add(key)


def _flipped(data, n):
    place = n % len(data)
    return data[:place] + bytes([data[place] ^ (1 << n % 8)]) + data[place + 1 :]


def swap(site, model, key, other, n):
    if key not in model.live or other not in model.live or key == other:
        return
    rows = site.rows()
    a, b = rows[key], rows[other]
    damage_row(site, model, key, lambda row: {"payload": b[8]}, forge=bool(n % 2))
    damage_row(site, model, other, lambda row: {"payload": a[8]}, forge=bool(n % 2))


def drop_row(site, model, key, other, n):
    with site.sql() as con:
        con.execute("DELETE FROM memory_records WHERE generation = ? AND key = ?", (site.generation(), key))
    model.live.pop(key, None)
    model.broken.discard(key)


def bulk(site, model, key, other, n):
    """Sealed as it should be and logged, but without the write lock."""
    _bulk(site, model, {key, other}, n, True, bool(n % 3 == 0))


def unlogged(site, model, key, other, n):
    _bulk(site, model, {key}, n, False, bool(n % 3 == 0))


def _bulk(site, model, keys, n, logged, deleted):
    items = {key: {"forged": n} for key in sorted(keys) if key not in model.broken}
    if not items:
        return
    site.unlocked(items, logged=logged, deleted=deleted)
    rows = site.rows()
    for key in items:
        model.wrote(key, Version(None if deleted else items[key], False, True, rows[key]))


def put_back(site, model, key, other, n):
    """A former row of the key, as a file-level restore would leave it."""
    former = [v for v in model.history.get(key, ())[:-1] if v.row]
    if not former or key in model.broken:
        return
    version = former[n % len(former)]
    with site.sql() as con:
        con.execute(
            f"INSERT OR REPLACE INTO memory_records (generation, {COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (site.generation(), *version.row),
        )
    model.live[key] = version


def lost_key(site, model, key, other, n):
    """Written under a record key that then disappears from the keyring and that no snapshot has."""
    ring = site.ring()
    former = ring.active_id
    name = ring.create_key()
    ring.activate(name)
    value = {"under": "a lost key", "n": n}
    with site.memory() as memory:
        memory.write(NS, key, value)
    model.broken.discard(key)
    model.wrote(key, Version(value, True, True, site.rows()[key]))
    ring.activate(former)
    forget_key(site, name)
    del model.live[key]
    model.broken.add(key)


def forget_key(site, name):
    with open(site.keyring["path"], encoding="utf-8") as stream:
        body = json.load(stream)
    body["keys"].pop(name, None)
    with open(site.keyring["path"], "w", encoding="utf-8") as stream:
        json.dump(body, stream)


def mislaid_key(site, model, key, other, n):
    """The keyring forgets the key of everything so far; the snapshots have it, wrapped.

    Once: the key that takes its place came after the last snapshot, and would be gone for good.
    """
    if not model.copies or model.mislaid:
        return
    model.mislaid = True
    ring = site.ring()
    former = ring.active_id
    ring.activate(ring.create_key())
    forget_key(site, former)


def lose_log_entry(site, model, key, other, n):
    with site.sql() as con:
        row = con.execute(
            "SELECT max(id) FROM memory_access_log "
            "WHERE namespace = ? AND key = ? AND operation IN ('write', 'delete')",
            (NS, key),
        ).fetchone()
        if row[0] is None:
            return
        if n % 3 == 0:
            con.execute("DELETE FROM memory_access_log WHERE id = ?", row)
        else:
            column, value = (
                ("sequence", 10**6), ("operation", "delete"), ("digest", b"x"), ("lock", 77), ("key", "altered"),
                ("epoch", 9), ("actor", "somebody"), ("checksum", b"y"),
            )[n // 3 % 8]  # fmt: skip
            changed = con.execute(
                f"UPDATE memory_access_log SET {column} = ? WHERE id = ? AND {column} IS NOT ?", (value, row[0], value)
            ).rowcount
            if not changed:
                return
    model.relaxed |= {key, "altered"}


def drop_index(site, model, key, other, n):
    with site.sql() as con:
        con.execute(f"DROP INDEX IF EXISTS {('memory_access_log_writes', 'memory_records_expires')[n % 2]}")


DAMAGES = (
    flip_payload, flip_checksum, odd_metadata, forged_metadata, swap, drop_row, bulk, unlogged, put_back, lost_key,
    mislaid_key,
    lose_log_entry, drop_index,
)  # fmt: skip


# --- one example ------------------------------------------------------------------------------------------------
NUMBER = st.integers(0, 10**6)
OPERATION = st.tuples(st.sampled_from(("write", "write", "write", "delete", "expire", "unlocked")), NUMBER, NUMBER)
DAMAGE = st.tuples(st.sampled_from(DAMAGES), NUMBER, NUMBER, NUMBER)
TEXT = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=8)
SCENARIO = st.fixed_dictionaries(
    {
        "keys": st.lists(
            st.one_of(st.sampled_from(KEYS), TEXT).filter(lambda key: not key.startswith("\0memops/")),
            min_size=3, max_size=9, unique=True,
        ),
        "periods": st.lists(st.lists(OPERATION, min_size=2, max_size=9), min_size=2, max_size=4),
        "damage": st.lists(DAMAGE, min_size=1, max_size=7),
    }
)  # fmt: skip


def write_history(site, scenario):
    model, keys = Model(), scenario["keys"]
    with site.memory() as memory:
        for key in keys:
            memory.write(OTHER, key, {"other": key})
        for number, period in enumerate(scenario["periods"]):
            for turn, (kind, at, n) in enumerate(period):
                key = keys[at % len(keys)]
                if kind == "unlocked":
                    _bulk(site, model, {key, keys[n % len(keys)]}, n, True, bool(n % 5 == 0))
                    continue
                value = {"period": number, "turn": turn, "n": n}
                if kind == "delete":
                    if not memory.delete(NS, key, soft=bool(n % 2)):
                        continue
                    value = None
                elif n % 7 == 0:
                    value = bytes(n % 50)
                if kind != "delete":
                    memory.write(NS, key, value, ttl=1e-6 if kind == "expire" else None)
                model.wrote(key, Version(value, True, kind != "expire", site.rows()[key]))
            if number < len(scenario["periods"]) - 1 and model.history and not site.backup()["suspect"]:
                model.copies.append(dict(model.live))
    return model


def expectations(model):
    """{key: one of these an application must get}, lost keys, suspect keys, keys that may be called lost.

    The last: the newest write had expired, and it is nowhere any more. The log does not tell when a record expires.
    """
    served, lost, suspect, unclear = {}, set(), set(), set()
    for key in model.history:
        wanted, live = model.acknowledged(key), model.live.get(key)
        older = model.older(key)
        if live is not None and not live.trusted and live.value is not None:
            suspect.add(key)
        if wanted is None or wanted.value is None or not wanted.lives:
            served[key] = [None]
            if wanted is not None and wanted.value is not None and live is not wanted and not model.has(wanted, key):
                unclear.add(key)
                served[key] += older[:1]
        elif live is wanted or model.has(wanted, key):
            served[key] = [wanted.value]
        else:
            stale = live is not None and live.trusted and live.lives and live.value is not None
            served[key] = (older[:1] or [None]) + ([live.value] if stale else [])
            if live is None or live.trusted or live.value is None:
                lost.add(key)
    return served, lost, suspect, unclear


@settings(
    max_examples=EXAMPLES, deadline=None, print_blob=True, derandomize=False, database=None,
    suppress_health_check=list(HealthCheck), report_multiple_bugs=False, phases=PHASES,
)  # fmt: skip
@given(SCENARIO)
def test_what_is_served_after_a_rebuild_is_what_the_model_says(scenario):
    with tempfile.TemporaryDirectory(prefix="memops-rebuild-", dir=SCRATCH) as folder:
        check(Site(os.path.join(folder, "soft")), scenario, folder)


def check(site, scenario, folder):
    model = write_history(site, scenario)
    if not model.history:
        return
    keys = scenario["keys"]
    for harm, at, other, n in scenario["damage"]:
        key = keys[at % len(keys)]
        if key not in model.touched:
            before = len(model.touched)
            harm(site, model, key, keys[other % len(keys)], n)
            model.touched |= {key, keys[other % len(keys)]} if harm in (swap, bulk) else {key}
            assert len(model.touched) > before
    rows, elsewhere = site.rows(), site.untouched()
    hard = Site(os.path.join(folder, "hard"))
    shutil.rmtree(hard.folder)
    shutil.copytree(site.folder, hard.folder)
    steps = site.rebuild("soft", until="validate")
    _check_summary(site, model, steps, rows)
    _check_rows(site, model, rows)
    _check_again(site)
    site.step("release", attempt(takeover=site_attempt(site)), force=True)
    served = site.served()
    _check_served(site, model, served, steps)
    assert site.untouched() == elsewhere, "another namespace was touched"
    _check_hard(hard, served, elsewhere)


def site_attempt(site):
    with site.open() as store:
        return next(one.attempt for one in store.incidents(NS))


def _check_summary(site, model, steps, rows):
    plan = steps["plan"]
    records = plan["records"]
    note(f"records {records}, lost {plan['lost_keys']}, suspect {plan['suspect_keys']}")
    parts = ("good_before", "repair", "suspect", "conflicted", "lost")
    assert records["expected"] == sum(records[part] for part in parts), records
    _served, lost, suspect, unclear = expectations(model)
    relaxed = model.relaxed
    if relaxed:
        assert plan["could_not_verify"], "a damaged log went unsaid"
    assert set(plan["lost_keys"]) - relaxed - unclear == lost - relaxed - unclear
    assert set(plan["suspect_keys"]) - relaxed == suspect - relaxed
    if not relaxed:
        good = sum(
            1 for key, version in model.live.items()
            if version is model.acknowledged(key) and version.value is not None and version.lives
        )  # fmt: skip
        assert records["good_before"] == good + (CANARY in rows)
    with open(plan["lost_file"], encoding="utf-8") as stream:
        assert [json.loads(line)["key"] for line in stream] == plan["lost_keys"]
    assert steps["validate"]["integrity"]["verdict"] == "pass", steps["validate"]


def _check_rows(site, model, before):
    after = site.rows()
    codec = RecordCodec(NS)
    for key, row in before.items():
        if key in model.live and model.live[key] is model.acknowledged(key) and key not in model.relaxed:
            assert after[key] == row, f"{key!r} was good and was changed"
    for key, row in after.items():
        assert codec.intact(row), key
    aside = site.aside()
    for key, version in model.live.items():
        if not version.trusted and version.value is not None and key not in model.relaxed:
            assert any(site.value_of(row) == version.value for row in aside[key] if codec.intact(row)), (
                f"the suspect version of {key!r} cannot be brought back"
            )


def _check_again(site):
    before, log = site.rows(), site.untouched(NS)[1]
    run = attempt(takeover=site_attempt(site))
    for name in ("isolate", "forensic", "diagnose", "plan", "apply", "validate"):
        options = {"strategy": "soft", "accept_loss": True} if name == "plan" else {}
        result = site.step(name, run, **options)
        assert result["changed"] is False, f"{name} changed something the second time"
    assert site.rows() == before and site.untouched(NS)[1] == log


def _check_served(site, model, served, steps):
    expected = expectations(model)[0]
    calm = all(version.trusted for versions in model.history.values() for version in versions)  # no distrusted window
    for key in set(expected) | set(served):
        if key in model.relaxed:
            # a row that equals the one of a verified snapshot is believed, whatever became of its log entry
            history = [v.value for v in model.history.get(key, ()) if v.trusted or model.has(v, key)]
            assert served.get(key) is None or served[key] in history, f"{key!r} serves what nobody acknowledged"
            wanted = model.acknowledged(key)
            if wanted is not None and wanted is model.live.get(key) is (model.copies or [{}])[-1].get(key) and calm:
                assert served.get(key) == (wanted.value if wanted.lives else None), f"{key!r}: the snapshot proves it"
        else:
            assert served.get(key) in expected[key], (key, served.get(key), expected[key])


def _check_hard(site, served, elsewhere):
    run = attempt()
    generation = site.generation()
    site.rebuild("hard", until="isolate", run=run)
    former = site.rows()
    site.rebuild("hard", until="validate", run=run)
    assert site.generation() != generation
    site.rebuild("hard", until="release", run=run)
    assert site.served() == served, "soft and hard serve different things"
    assert site.untouched() == elsewhere
    site.step("isolate", run)
    with site.open() as store:
        assert apply.undo(store=store, namespace=NS, run=run)["changed"]
    assert site.generation() == generation
    assert site.rows() == former, "undo does not give the former content back"
