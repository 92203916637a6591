# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Payloads that another program stored as text, some of it no UTF-8, and keys that are none: damage like any other; no
bytes of it are told."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import RecordCorrupt
from tests.unit.operations.runbook import NS, Site


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_a_payload_that_became_text_is_repaired(tmp_path, strategy):
    site = Site(tmp_path / "site")
    with site.memory() as memory:
        memory.write_many(NS, {f"k{n:02d}": n for n in range(30)})
    site.backup()
    with site.sql() as con:
        con.execute("UPDATE memory_records SET payload = substr(payload, 1, 20) || x'ff' || substr(payload, 22) "
                    "WHERE key IN ('k03', 'k04')")  # fmt: skip
        con.execute("UPDATE memory_records SET payload = CAST(payload AS TEXT) WHERE key = 'k05'")
        assert con.execute("SELECT typeof(payload) FROM memory_records WHERE key = 'k03'").fetchone() == ("text",)
    with site.memory() as memory, pytest.raises(RecordCorrupt) as caught:
        memory.read(NS, "k03")
    assert "\\x" not in str(caught.value) and "\udcff" not in str(caught.value)
    done = site.rebuild(strategy)
    assert done["plan"]["records"]["repair"] == 3
    assert site.served() == {f"k{n:02d}": n for n in range(30)}


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_a_key_behind_all_others_that_is_no_text_stops_nothing(tmp_path, strategy):
    values = {f"k{n:02d}": n for n in range(30)}
    site = Site(tmp_path / "site")
    with site.memory() as memory:
        memory.write_many(NS, values)
    site.backup()
    with site.sql() as con:
        con.execute("UPDATE memory_records SET key = CAST(x'ff61' AS TEXT) WHERE key = 'k07'")
        con.execute("UPDATE memory_records SET payload = zeroblob(40) WHERE key = 'k09'")
    with site.memory() as memory:
        assert set(values) - set(memory.list_keys(NS)) == {"k07"}
    done = site.rebuild(strategy)
    assert done["plan"]["records"]["repair"] == 2 and done["plan"]["records"]["lost"] == 0
    assert site.served() == values
