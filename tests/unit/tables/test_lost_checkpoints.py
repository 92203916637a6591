# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint that the one after it names, and that is not there though older ones are, was lost: no application takes
one out of the middle. A thread that was trimmed has lost nothing."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_needed import LACKING, NEEDED
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.unit.operations.runbook import NS, attempt
from tests.unit.tables.keys_help import keyed

LAYOUT = "langgraph_checkpoint"
STEPS = ("isolate", "forensic", "diagnose", "plan", "apply", "validate", "release")


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request, tmp_path, processes, postgresql_server):
    one = keyed(tmp_path, processes[LAYOUT], LAYOUT, request.param, postgresql_server)
    for word in ("one", "two", "three"):
        one.app.say(NS, [word])
    yield one
    one.end()


def rebuilt(site, plan=None, window=None):
    """The runbook with its baseline; {step: its result}."""
    run = attempt()
    options = {"diagnose": {"window": window or Window()}, "plan": plan or {}}
    done = {name: site.step(name, run, **options.get(name, {})) for name in STEPS}
    site.close_incident()
    done["baseline"] = site.step("baseline", attempt())
    return done


def checkpoints(site):
    return [row[0] for row in site.sql(f"SELECT checkpoint_id FROM checkpoints WHERE thread_id = '{NS}' ORDER BY 1")]


def lose(site, *names):
    """With all that belongs to them alone."""
    listed = ", ".join(f"'{name}'" for name in names)
    site.sql(f"DELETE FROM checkpoints WHERE checkpoint_id IN ({listed})")
    site.sql(f"DELETE FROM {'writes' if site.engine == 'sqlite' else 'checkpoint_writes'} "
             f"WHERE checkpoint_id IN ({listed})")  # fmt: skip
    if site.engine == "postgresql":
        site.sql("DELETE FROM checkpoint_blobs b WHERE NOT EXISTS (SELECT 1 FROM checkpoints c, "
                 "jsonb_each_text(c.checkpoint -> 'channel_versions') v WHERE v.key = b.channel "
                 "AND v.value = b.version)")  # fmt: skip


def key(name):
    return f"checkpoint/%-/{name}"


def test_a_stretch_out_of_the_middle_comes_back_with_what_belongs_to_it(site):
    before, told = site.rows(NS), site.app.history(NS)
    site.backup()
    there = checkpoints(site)
    lose(site, *there[2:5])
    gone = before.keys() - site.rows(NS).keys()
    assert gone > {key(name) for name in there[2:5]}
    done = rebuilt(site)
    assert done["plan"]["listed"]["repair"] == dict.fromkeys(sorted(gone), NEEDED)
    assert done["diagnose"]["findings"] == {"absent": len(gone)} and done["plan"]["records"]["damaged"] == len(gone)
    assert site.rows(NS) == before and site.app.history(NS) == told


def test_one_that_the_newest_snapshot_lacks_comes_back_from_an_older_one(site):
    before, told = site.rows(NS), site.app.history(NS)
    site.backup()
    lost = checkpoints(site)[3:5]
    lose(site, *lost)
    site.app.say(NS, ["four"])
    site.backup()
    later = site.rows(NS)
    done = rebuilt(site)
    assert {key(name) for name in lost} <= done["plan"]["listed"]["repair"].keys() and done["plan"]["lost_total"] == 0
    assert site.rows(NS) == {**before, **later}
    assert [one for one in site.app.history(NS) if one in told] == told


def test_one_that_nobody_has_is_lost_by_its_name_until_it_was_told(site):
    there = checkpoints(site)
    lose(site, there[4])
    site.backup()
    after = site.rows(NS)
    done = rebuilt(site, {"accept_loss": True})
    assert done["plan"]["lost_keys"] == [key(there[4])] and done["plan"]["records"]["lost"] == 1
    assert done["plan"]["listed"]["lost"] == {key(there[4]): LACKING}
    with open(done["plan"]["lost_file"], encoding="utf-8") as stream:
        assert key(there[4]) in stream.read()
    assert done["validate"]["verdict"] != "fail" and done["release"]["changed"]
    again = rebuilt(site)
    assert again["plan"]["lost_total"] == 0 and again["plan"]["escalate_reason"] is None
    assert again["diagnose"]["findings"] == {} and site.rows(NS) == after


def test_who_says_that_what_is_absent_was_deleted_has_lost_nothing(site):
    there = checkpoints(site)
    site.backup()
    lose(site, there[4])
    done = rebuilt(site, {"absent": "keep"})
    assert key(there[4]) in done["plan"]["absent_keys"] and "repair" not in done["plan"]["listed"]
    assert key(there[4]) not in site.rows(NS)


def test_who_says_so_of_one_that_nobody_has_has_lost_nothing_either(site):
    lose(site, checkpoints(site)[4])
    site.backup()
    run = attempt()
    for name in ("isolate", "forensic"):
        site.step(name, run)
    site.step("diagnose", run, window=Window())
    assert site.step("plan", run)["lost_total"] == 1
    plan = site.step("plan", run, absent="keep")
    assert (plan["lost_total"], plan["lost_keys"], plan["records"]["lost"], plan["loss_ratio"]) == (0, [], 0, 0)
    assert not plan["escalate"] and "lost" not in plan["listed"]
    with open(plan["lost_file"], encoding="utf-8") as stream:
        assert stream.read() == ""


def test_a_thread_that_was_trimmed_to_its_newest_has_lost_nothing(site):
    site.backup()
    lose(site, *checkpoints(site)[:-3])
    with site.open() as store:
        assert not [line for line in store.warnings() if "parent" in line]
    kept = site.rows(NS)
    done = rebuilt(site, {"absent": "keep"})
    assert done["plan"]["lost_total"] == 0 and "repair" not in done["plan"]["listed"]
    assert done["diagnose"]["findings"] == {} and site.rows(NS) == kept


def test_one_that_came_after_a_record_that_goes_is_not_looked_for(site):
    site.backup()
    there = checkpoints(site)
    site.app.say(NS, ["bad"])
    new = checkpoints(site)[len(there) :]
    lose(site, new[0])
    made = {row[3] for name, row in site.rows(NS).items() if name in {key(one) for one in new}}
    done = rebuilt(site, window=Window(onset=min(made) - 10))
    assert done["plan"]["lost_total"] == 0 and key(new[0]) not in str(done["plan"]["listed"])
