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

from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import apply
from tests.unit.operations.decoded import agrees
from tests.unit.operations.rebuild_damage import CANARY, DAMAGES, Model, Version, bulk, swap, write_unlocked
from tests.unit.operations.runbook import NS, OTHER, Site, attempt

EXAMPLES = int(os.environ.get("MEMOPS_REBUILD_EXAMPLES", "80"))
# Shrinking a failure takes minutes: only with MEMOPS_REBUILD_SHRINK; else the example is printed as it is.
PHASES = (Phase.explicit, Phase.generate, *((Phase.shrink,) if "MEMOPS_REBUILD_SHRINK" in os.environ else ()))
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # thousands of small durable writes
KEYS = (
    "plain", "with/slash", "\0nul", "nul\0inside", "new\nline", " ", "ключ", "\U0001f9e0", "a", "a\0", "a/b", "\uffff",
    "\U0010ffff", "e\u0301", "\xe9", "'; DROP TABLE memory_records; --", "%", "_" * 300,
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
                    write_unlocked(site, model, {key, keys[n % len(keys)]}, n, True, bool(n % 5 == 0))
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
    agrees(site, served, steps["plan"]["lost_file"])
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
