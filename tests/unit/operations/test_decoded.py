# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What other tests ask of the independent decoder at their end is not always so."""

from __future__ import annotations

import json

import pytest

from tests.unit.operations.decoded import agrees
from tests.unit.operations.runbook import NS, Site


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    with made.memory() as memory:
        memory.write_many(NS, {"text": "told", "bytes": b"\0\xff", "gone": 1})
        memory.delete(NS, "gone", soft=True)
        memory.write(NS, "past", 1, ttl=1e-6)
    return made


def test_it_agrees_with_what_is_served_and_with_nothing_else(site, tmp_path):
    served = site.served()
    assert set(served) == {"text", "bytes"}
    lost = tmp_path / "lost_keys.jsonl"
    lost.write_text(json.dumps({"key": "never", "older_copy": None}) + "\n")
    agrees(site, served, lost)
    for wrong in ({**served, "text": "lied"}, {**served, "more": 1}, {"text": "told"}):
        with pytest.raises(AssertionError):
            agrees(site, wrong)
    lost.write_text(json.dumps({"key": "text", "older_copy": None}) + "\n")
    with pytest.raises(AssertionError):
        agrees(site, served, lost)


def test_damage_is_no_agreement(site):
    served = site.served()
    site.raw.set(NS, "text", payload=bytes(40))
    with pytest.raises(AssertionError):
        agrees(site, served)
