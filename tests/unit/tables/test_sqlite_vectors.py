# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The vectors of LangGraph's SqliteStore, which it makes and searches with sqlite-vec in a process of its own. The
runbook has Python's own sqlite3, without any extension."""
from __future__ import annotations

import json
import os

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import apply, restore
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.unit.operations.runbook import NAME, NS, OTHER, attempt
from tests.unit.tables.sqlite_help import LanggraphSite

TABLES = ("store", "store_vectors")
TEXTS = ("value 3", "the sea", "a tag", json.dumps({"deep": True}))


class Site(LanggraphSite):
    def seen(self, namespace=NS):
        """All that the framework tells: what it lists, and what it finds for each text, in which order and how near."""
        return sorted(map(json.dumps, self.app.everything([namespace]))), self.app.ranked([namespace], *TEXTS)

    def vectors(self, where, *values):
        return self.sql(f"SELECT prefix, key, field_name, embedding FROM store_vectors WHERE {where}", *values)


@pytest.fixture
def site(tmp_path, app):
    return filled(Site(tmp_path, app))


def filled(site):
    site.fill()
    site.fill(OTHER, 10)
    for namespace in (NS, OTHER):  # a vector for each of several texts of one item
        site.app.put([namespace, "tags"], "sea", {"text": "the sea", "tags": ["a tag", "b"]}, None, ["text", "tags[*]"])
    return site


def rebuild(site, window=None, strategy="auto", until="release"):
    run = attempt()
    options = {"diagnose": {"window": window}, "plan": {"strategy": strategy}}
    for name in ("isolate", "forensic", "diagnose", "plan", "apply", "validate", "release"):
        done = site.step(name, run, **options.get(name, {}))
        if name == until:
            return done


def damage(site):
    """The framework overwrites, deletes and adds; a vector is overwritten past it."""
    site.app.put([NS], "k00001", {"text": "garbage"})
    site.app.put([NS, "tags"], "sea", {"text": "garbage"}, None, ["text"])  # vectors of its tags stay
    site.app.delete([NS], "k00002")  # it leaves the vector
    site.app.put([NS], "made", {"text": "by the damage"})
    site.sql("UPDATE store_vectors SET embedding = zeroblob(32) WHERE prefix = ? AND key = 'k00003'", NS)


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_a_search_finds_after_a_rebuild_what_it_found_before_in_the_same_order(site, strategy):
    assert [len(found) for found in site.seen()[1]] == [20] * len(TEXTS)
    assert site.seen()[1][1][0][1] == site.seen()[1][2][0][1] == "sea"  # either vector of it is the nearest to its text
    before, sibling, rows = site.seen(), site.seen(OTHER), site.dump(TABLES, f"prefix LIKE '{OTHER}%'")
    vectors = sorted(site.vectors("prefix LIKE ?", NS + "%"))
    site.backup()
    started = now_us()
    damage(site)
    assert site.seen()[1] != before[1]
    window = Window(onset=started, keys=frozenset(("k00001", "k00002", "k00003", "made", "tags/sea")))
    rebuild(site, window, strategy)
    assert site.seen() == before
    assert sorted(site.vectors("prefix LIKE ?", NS + "%")) == vectors  # and those of what the damage made are gone
    assert site.seen(OTHER) == sibling and site.dump(TABLES, f"prefix LIKE '{OTHER}%'") == rows


def test_vectors_are_out_of_sight_while_quarantined_and_the_same_bytes_after_a_hard_rebuild(site):
    before, seen, sibling = site.dump(TABLES), site.seen(), site.seen(OTHER)
    site.backup()
    rebuild(site, strategy="hard", until="apply")
    assert site.seen() == ([], [[]] * len(TEXTS)) and not site.vectors("prefix LIKE ?", NS + "%")
    with pytest.raises(RuntimeError, match="IntegrityError: memops fence"):
        site.app.put([NS], "k00001", {"text": "refused"})
    with pytest.raises(Exception, match="memops fence"):
        site.sql("INSERT INTO store_vectors (prefix, key, field_name) VALUES (?, 'k00001', '$')", NS)
    assert site.seen(OTHER) == sibling
    site.step("release", attempt(takeover=site.last_attempt()), force=True)
    assert site.dump(TABLES) == before and site.seen() == seen


def test_undo_brings_back_the_vectors_of_the_damage(site):
    site.backup()
    started = now_us()
    damage(site)
    damaged, seen = site.dump(TABLES), site.seen()
    rebuild(site, Window(onset=started), "hard", until="apply")
    with site.open() as store:
        assert apply.undo(store=store, namespace=NS, run=attempt(takeover=site.last_attempt()))["changed"]
    site.step("release", attempt(takeover=site.last_attempt()), force=True)
    assert site.dump(TABLES) == damaged and site.seen() == seen


def bring(site, **options):
    return restore.restore(
        store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace=NS, **options
    )


def test_a_lost_file_and_another_name_get_the_vectors_too_and_none_is_made_anew(site):
    before, vectors = site.seen(), sorted(site.vectors("prefix LIKE ?", NS + "%"))
    site.backup()
    site.app.close()
    os.unlink(site.path)
    site = Site(site.folder, site.app)
    bring(site, create=True)
    assert site.seen() == before and sorted(site.vectors("1")) == vectors
    bring(site, to_namespace="zoe", create=True, attempt=attempt().attempt, owner="the test")
    renamed = json.loads(json.dumps(site.seen("zoe")).replace('"zoe"', f'"{NS}"').replace('\\"zoe\\"', f'\\"{NS}\\"'))
    assert renamed == json.loads(json.dumps(before)) and site.seen() == before


def test_an_item_without_its_vector_is_told_of_and_gets_it_back_by_its_key(site):
    site.sql("UPDATE store SET updated_at = datetime(updated_at, '-1 hour')")
    seen = site.seen()
    site.backup()
    site.sql("DELETE FROM store_vectors WHERE prefix = ? AND key = 'k00003'", NS)
    assert site.seen() != seen
    with site.open() as store:
        (line,) = [line for line in store.warnings() if "vector" in line]
    assert line.startswith(f"1 item of '{NS}' has no vector for '$', as ") and "such as 'k00003'" in line
    assert bring(site, keys=["k00003"], attempt=attempt().attempt, owner="the test")["restored"] == 1
    assert site.seen() == seen
    site.app.put([NS], "meant", {"text": "no search is to find it"}, None, False)
    with site.open() as store:
        assert [line for line in store.warnings() if "such as 'meant'" in line]


def test_a_file_whose_application_made_no_vector_index_is_refused_and_named(site):
    site.backup()
    site.app.close()
    os.unlink(site.path)
    site = Site(site.folder, site.app)
    site.sql("DROP TABLE store_vectors")  # as with an application that was started without its index
    with pytest.raises(CannotProceed, match="no table store_vectors") as refused:
        bring(site, create=True)
    assert "start the application" in str(refused.value)
