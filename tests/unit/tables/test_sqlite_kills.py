# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A process that works on a framework's tables is killed again and again; the same command goes on, and nothing is
lost. Random damage is repaired to exactly what the rules say."""
from __future__ import annotations

import os
import secrets
import signal

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import sqlite_connect
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.unit.operations.runbook import NS
from tests.unit.operations.unlogged_model import NAMES, after, expected, histories, in_child, rebuild
from tests.unit.tables.sqlite_help import LanggraphSite

TABLES = ("store", "store_vectors")


@pytest.fixture
def site(tmp_path, app):
    one = LanggraphSite(tmp_path, app)
    return one


class Dying:
    """The store's connection, whose process is killed (SIGKILL) before its ``step``-th statement that writes."""

    def __init__(self, con, left):
        self.__dict__.update(con=con, left=left)

    def _count(self, text):
        if text.split()[0] in ("INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "COMMIT"):
            self.left[0] -= 1
            if not self.left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    def execute(self, text, *values):
        self._count(text)
        return self.con.execute(text, *values)

    def executemany(self, text, values):
        self._count(text)
        return self.con.executemany(text, values)

    def __getattr__(self, name):
        return getattr(self.con, name)

    def __setattr__(self, name, value):
        setattr(self.con, name, value)


def killed_at(step, work):
    def prepare():
        left, real = [step], sqlite_connect.Opened.__init__

        def init(self, *args, **kwargs):
            real(self, *args, **kwargs)
            self._con = Dying(self._con, left)

        sqlite_connect.Opened.__init__ = init

    return in_child(prepare, work)


def until_it_is_done(site, work, every):
    """How often ``work`` was killed; whatever had happened, no record was ever in both places or in none."""
    count, step, kills = site.count(), every, 0
    while True:
        status = killed_at(step, work)
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            return kills
        kills += 1
        step += every
        assert site.count() == count


class Site(LanggraphSite):
    def count(self):
        """Rows in the framework's table and in the active generation beside it."""
        live = self.sql("SELECT count(*) FROM store")[0][0]
        if not self.sql("SELECT 1 FROM sqlite_master WHERE name = 'memops_held_store'"):
            return live
        held = self.sql(
            "SELECT count(*) FROM memops_held_store h JOIN memops_namespace n ON n.generation = h.memops_generation "
            "AND n.state = 'quarantined'"
        )
        return live + held[0][0]


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_whenever_it_is_killed_the_same_command_finishes_it(site, strategy):
    site.__class__ = Site
    site.fill()
    before = site.records()
    site.backup()
    started = now_us()
    site.app.delete([NS], "k00003", "big")
    site.app.put([NS], "k00005", {"text": "garbage"})
    assert until_it_is_done(site, lambda: site.step("isolate", after(site)), 3) >= 5
    assert site.app.everything([NS]) == []
    site.step("forensic", after(site))
    site.step("diagnose", after(site), window=Window(onset=started))
    site.step("plan", after(site), strategy=strategy)
    step, kills = 4, 0
    while os.WIFSIGNALED(status := killed_at(step, lambda: site.step("apply", after(site)))):
        kills += 1
        step += 7
        assert site.app.everything([NS]) == []
    assert os.WEXITSTATUS(status) == 0 and kills >= 3
    site.step("validate", after(site))
    assert until_it_is_done(site, lambda: site.step("release", after(site)), 3) >= 2
    assert site.records() == before
    assert not site.sql("SELECT 1 FROM sqlite_master WHERE type = 'trigger'")


@settings(max_examples=6, phases=(Phase.generate,), suppress_health_check=list(HealthCheck), deadline=None)
@given(**histories("set", "delete", "break", "expiry", "vector"))
def test_random_damage_is_repaired_as_the_rules_say(site, between, damage, inside, absent, strategy):
    namespace = f"model{secrets.token_hex(6)}"

    def do(changes, broken):
        for name, what in changes:
            if what == "set":
                site.app.put([namespace], name, {"changed": secrets.token_hex(8)})
                broken.discard(name)
            elif what == "delete":
                site.app.delete([namespace], name)
                site.sql("DELETE FROM store_vectors WHERE prefix = ? AND key = ?", namespace, name)
                broken.discard(name)
            elif what == "break":
                site.sql("UPDATE store SET value = x'7b' WHERE prefix = ? AND key = ?", namespace, name)
                broken.add(name)
            elif what == "expiry":
                site.sql("UPDATE store SET expires_at = '2099-01-01 00:00:00' WHERE prefix = ? AND key = ?", namespace,
                         name)  # fmt: skip
            else:
                site.sql("UPDATE store_vectors SET embedding = ? WHERE prefix = ? AND key = ?", os.urandom(1) * 32,
                         namespace, name)  # fmt: skip

    site.app.fill([namespace], {name: {"first": name} for name in NAMES[:9]})
    site.backup()
    older: set = set()
    do([one for one in between if one[1] != "break"], older)
    if between:
        site.backup()
    newest = site.rows(namespace)
    onset, broken = now_us(), set()
    do(damage, broken)
    now = site.rows(namespace)
    rebuild(site, namespace, inside, onset, strategy, absent)
    wanted = expected(now, newest, inside, absent, broken=lambda row: not row[9])
    assert site.rows(namespace) == wanted, (newest, now)
