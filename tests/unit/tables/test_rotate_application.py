# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The key of a framework's own encryption is replaced, and the framework itself reads everything with the new one."""
from __future__ import annotations

import base64
import json
import os
import signal
import traceback

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._application_ciphers import ApplicationKey
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    CapabilityMissing,
    KeyUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import rotate_application as rotation
from tests.unit.operations.runbook import NAME, attempt
from tests.unit.tables.keys_help import NEW, OLD, TABLES, WRONG, keyed


@pytest.fixture(params=sorted(TABLES), ids="-".join)
def site(request, tmp_path, processes, postgresql_server):
    layout, engine = request.param
    one = keyed(tmp_path, processes[layout], layout, engine, postgresql_server)
    one.use(OLD)
    yield one
    one.end()


def rotate(site, key=NEW, **options):
    return rotation.rotate_application(store_params=site.store, new_key=ApplicationKey(key, "the test"), **options)


def states(site):
    with site.open() as store, store.reader() as reader:
        return {state.name: state.state for state in reader.namespaces()}


def opens_nothing(site, namespace, key):
    try:
        return site.told(namespace, key) == []
    except RuntimeError:
        return True


def times(site, namespace):
    """The time in each token, by which the SDK judges what has expired."""
    tokens = [json.loads(value)["payload"] for _row, value in site.sealed(namespace)]
    return [base64.urlsafe_b64decode(token)[1:9] for token in tokens]


def test_the_framework_reads_everything_with_the_new_key(site):
    names = ["ann", "bob %/", "plain"]
    for name in names:
        site.say(name, 4, None if name == "plain" else OLD)
    before = {name: site.told(name, None if name == "plain" else OLD) for name in names}
    rows, values = site.dumped(), site.sealed("ann")
    at = times(site, "ann") if site.messages else None
    checked = rotate(site, check=True)
    assert checked["changed"] and not checked["complete"] and checked["records"]["remaining"] >= 8
    assert checked["records"]["rotated"] == 0 and site.dumped() == rows
    assert not site.sql("SELECT 1 FROM sqlite_master WHERE name LIKE 'memops%'") if site.engine == "sqlite" else True
    done = rotate(site)
    assert done["changed"] and done["complete"], done
    assert done["records"]["rotated"] == checked["records"]["remaining"] and not done["records"]["remaining"]
    for name in names:
        assert site.told(name, None if name == "plain" else NEW) == before[name]
    assert opens_nothing(site, "ann", OLD) and opens_nothing(site, "bob %/", OLD)
    assert {value for _row, value in values}.isdisjoint(value for _row, value in site.sealed("ann"))
    assert at is None or times(site, "ann") == at
    assert set(states(site).values()) == {"serving"}
    rows = site.dumped()
    again = rotate(site)
    assert "run a backup" in " ".join(done["reasons"]) and "run a backup" not in " ".join(again["reasons"])
    inline = (site.layout, site.engine) == ("langgraph_checkpoint", "postgresql")  # texts in the checkpoints themselves
    assert (done["records"]["plain"] > 0) is inline and ("lie in plain" in " ".join(done["reasons"])) is inline
    assert not again["changed"] and again["complete"] and again["records"]["already"] == done["records"]["rotated"]
    assert site.dumped() == rows
    site.say("ann", 1, NEW)  # the application goes on
    assert NEW not in json.dumps(done) and OLD not in json.dumps(done)


def test_values_that_no_key_opens_are_set_aside_and_listed(site):
    site.say("ann", 12)
    before = site.told("ann")
    site.backup()
    row, value = site.sealed("ann")[3]
    site.damage("ann", row, value)
    checked = rotate(site, check=True)
    assert checked["records"]["unopenable"] == 1 and "would set aside 1 value that" in " ".join(checked["reasons"])
    done = rotate(site)
    assert done["records"]["aside"] == 1 and done["complete"] and len(done["unopenable"]) == 1
    named = done["unopenable"][0]
    assert named["namespace"] == "ann" and named["evidence"] == rotation.ASIDE
    with site.open() as store, store.reader() as reader:
        aside = [one for some in reader.aside("ann") for one in some]
    assert [(reason, row[0]) for _incident, reason, row in aside] == [(rotation.ASIDE, named["key"])]
    told = site.told("ann", NEW)
    assert told and (len(told) == len(before) - 1 if site.messages or site.engine == "sqlite" else True)
    found = restore.restore(
        store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace="ann",
        keys=[named["key"]],
    )  # fmt: skip
    assert found["restored"] == 1  # with the former key, as the snapshot has it
    assert rotate(site)["records"]["rotated"] == 1
    assert site.told("ann", NEW) == before


def test_a_wrong_key_changes_nothing(site):
    site.say("ann")
    rows = site.dumped()
    site.use(WRONG)
    done = rotate(site)
    assert not done["changed"] and not done["complete"] and site.dumped() == rows
    assert done["records"]["unopenable"] == len(done["unopenable"]) >= 3
    assert "memory_force" in " ".join(done["reasons"]) and states(site) == {"ann": "serving"}
    site.use()
    with pytest.raises(KeyUnavailable, match="the key that the application's values have now"):
        rotate(site)
    with pytest.raises(CapabilityMissing):
        rotation.rotate_application(
            store_params={"engine": "sqlite", "layout": "agno", "path": "none"}, new_key=ApplicationKey(NEW, "")
        )


class Watched:
    """A store that calls ``seen(step, method)`` before each of its steps that change something."""

    def __init__(self, store, seen):
        self._store, self._seen, self._steps = store, seen, 0

    def __getattr__(self, name):
        method = getattr(self._store, name)
        if name not in ("claim", "note", "fence", "change", "unfence", "close_incident"):
            return method

        def step(*arguments, **named):
            self._steps += 1
            self._seen(self._steps, name)
            return method(*arguments, **named)

        return step


def test_nobody_else_meets_a_namespace_whose_values_are_being_changed(site, monkeypatch):
    site.say("ann", 4)
    site.say("bob")
    before, other = site.told("ann"), site.told("bob")
    met = []

    def seen(_step, name):
        if name == "change":
            met.append((site.told("ann", NEW), site.told("bob")))
            with pytest.raises(RuntimeError):
                site.say("ann", 1, NEW)

    opened = rotation.open_store
    monkeypatch.setattr(rotation, "open_store", lambda params: Watched(opened(params), seen))
    rotate(site, namespace="ann")
    assert met == [([], other)]
    assert site.told("ann", NEW) == before and site.told("bob") == other


def killed_at(site, namespace, step):
    """Whether a rotation in a process of its own was killed (SIGKILL) before its ``step``-th change."""
    child = os.fork()
    if not child:
        try:

            def seen(number, _name):
                if number == step:
                    os.kill(os.getpid(), signal.SIGKILL)

            opened = rotation.open_store
            rotation.open_store = lambda params: Watched(opened(params), seen)
            rotation.BATCH = 2 if site.messages else 16
            rotate(site, namespace=namespace, attempt="the dead", owner="the dead")
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize(
    "site", [("langgraph_checkpoint", "sqlite"), ("openai_agents", "postgresql")], ids="-".join, indirect=True
)
def test_a_rotation_that_is_killed_anywhere_goes_on(site):
    step, fenced = 0, 0
    while True:
        step += 1
        name = f"number {step}"
        site.say(name, 5 if site.messages else 2)
        before = site.told(name)
        if not killed_at(site, name, step):
            break
        fenced += states(site)[name] == "quarantined"
        done = rotate(site, namespace=name, takeover="the dead")
        assert done["complete"] and states(site)[name] == "serving", (step, done)
        assert site.told(name, NEW) == before
        with site.open() as store:
            assert all(one.state == "closed" for one in store.incidents(name))
    assert step > 7 and fenced >= 3


def test_a_rotation_under_way_is_not_released_and_takes_no_other_key(site):
    site.say("ann", 5)
    before = site.told("ann")
    assert killed_at(site, "ann", 5)
    run = attempt(takeover="the dead")
    with pytest.raises(CannotProceed, match="rotation of the application's key of ann is not finished"):
        site.step("release", run, namespace="ann")
    with pytest.raises(CannotProceed, match="that key is not given"):
        rotate(site, WRONG, takeover="the dead")
    site.use(NEW, OLD)  # with the key that was begun with among the known ones, another one may follow
    assert rotate(site, WRONG, takeover="the dead")["complete"]
    assert site.told("ann", WRONG) == before


def test_a_quarantine_that_stood_before_stays(site):
    site.say("ann")
    before = site.told("ann")
    run = attempt()
    site.step("isolate", run, namespace="ann")
    assert rotate(site, attempt=run.attempt)["complete"]
    assert states(site) == {"ann": "quarantined"}
    site.step("release", run, namespace="ann")
    assert site.told("ann", NEW) == before
