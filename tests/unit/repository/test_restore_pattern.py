# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Restoring the records whose key matches a pattern: what is gone comes back, what was written since stays."""
from __future__ import annotations

import contextlib

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import isolate_records
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import Run
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_choice import choose
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.stores import log_of, rows_of

from .conftest import Place
from .test_restore import bring, value
from .test_snapshot import damage


def test_what_matches_comes_back_and_what_is_newer_stays(place: Place) -> None:
    place.fill("n", {f"k{number:04d}": number for number in range(2500)})
    place.fill("n", {"other": 1})
    place.snapshot()
    place.fill("n", {"k0003": "newer", "k0004": None, "k9999": "made since", "other": 2})
    damage(place, "UPDATE memory_records SET payload = x'00' WHERE key = 'k0001'")
    damage(place, "DELETE FROM memory_records WHERE key >= 'k0100' AND key < 'k2200'")
    before = rows_of(place.store, "n")
    for check in (True, False):
        with pytest.raises(errors.InvalidInput, match=r"No record in snapshot .* matches pattern 'none"):
            bring(place, pattern="none*", check=check)
    assert bring(place, pattern="k*", check=True)["restored"] == 2101
    assert rows_of(place.store, "n") == before
    result = bring(place, pattern="k*")
    assert (result["restored"], result["newer_keys"], result["unchanged"]) == (2101, ["k0003", "k0004"], 397)
    assert "memory_force=true" in result["warnings"][0]
    found = {row[0]: row for row in rows_of(place.store, "n")}
    assert {row[0]: row for row in before if row[0] in ("k0003", "k0004", "k9999", "other")}.items() <= found.items()
    assert value(place, place.store, "n", "k0001") == 1 and value(place, place.store, "n", "k2199") == 2199
    assert {"k0001", "k0100", "k2199"} <= {entry[4] for entry in log_of(place.store, "n")}
    assert not bring(place, pattern="k*")["changed"]
    result = bring(place, pattern="k000*", keys=["other"], overwrite=True)
    assert (result["restored"], result["newer"]) == (3, 0) and value(place, place.store, "n", "other") == 1
    assert value(place, place.store, "n", "k0003") == 3 and value(place, place.store, "n", "k9999") == "made since"
    with open_store(place.store).reader() as reader:
        assert reader.log_health()["intact"]
        assert {"k0003", "other"} <= {row[0] for batch in reader.aside("n") for _incident, _reason, row in batch}


def test_what_is_isolated_stays_away(place: Place) -> None:
    place.fill("n", {"a": 1, "b": 2, "other": 3})
    place.snapshot()
    with contextlib.closing(open_store(place.store)) as store:
        isolate_records.isolate_records(
            store=store, store_params=place.store, namespace="n", choice=choose(keys=["a"]),
            open_keyring=lambda: place.keyring, run=Run("attempt", "operator"),
        )  # fmt: skip
    damage(place, "DELETE FROM memory_records WHERE key = 'b'")
    before = {row[0]: row for row in rows_of(place.store, "n")}
    assert bring(place, pattern="[ab]", attempt="another", owner="operator")["restored"] == 1
    after = {row[0]: row for row in rows_of(place.store, "n")}
    assert after["a"] == before["a"] and value(place, place.store, "n", "b") == 2


def test_what_matches_goes_under_another_name(place: Place) -> None:
    place.fill("n", {f"k{number}": number for number in range(20)})
    place.snapshot()
    assert bring(place, to_namespace="copy", pattern="k1*")["restored"] == 11
    assert len(rows_of(place.store, "copy")) == 11 and value(place, place.store, "copy", "k19") == 19
