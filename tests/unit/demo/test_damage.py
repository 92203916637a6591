# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each way of the demo's damage does to a real store what it says, and nothing else."""
from __future__ import annotations

import contextlib
import typing as t
from collections import Counter

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import integrity
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import (
    KeyUnavailable,
    Memory,
    RecordCorrupt,
)
from demo import damage, memories
from tests.support.stores import keyring_params, new_store

NAMESPACE = "agent-7"
KEYS = memories.keys(NAMESPACE, 80)
Store = t.Tuple[t.Dict[str, t.Any], t.Dict[str, t.Any]]


@pytest.fixture
def store(tmp_path: t.Any) -> Store:
    params, keyring = new_store(tmp_path), keyring_params(tmp_path)
    with Memory(store=params, keyring=keyring) as memory:
        memory.write_many(NAMESPACE, {key: memories.value(NAMESPACE, key) for key in KEYS}, ttl=3600)
    return params, keyring


@contextlib.contextmanager
def vandal(store: Store) -> t.Iterator[damage.Vandal]:
    it = damage.Vandal(store[0]["path"], NAMESPACE, Keyring.open(store[1]))
    try:
        yield it
    finally:
        it.close()


def outcome(store: Store, keys: t.Sequence[str]) -> Counter[str]:
    """How an application's reads of these keys end."""
    found: Counter[str] = Counter()
    with Memory(store=store[0], keyring=store[1]) as memory:
        for key in keys:
            try:
                value = memory.read(NAMESPACE, key)
            except (RecordCorrupt, KeyUnavailable) as exc:
                found[exc.code] += 1
            else:
                found["absent" if value is None else "own" if value == memories.value(NAMESPACE, key) else "other"] += 1
    return found


def findings(store: Store) -> dict[str, int]:
    scan = integrity.scan(store_params=store[0], keyring=Keyring.open(store[1]), namespace=NAMESPACE)
    return dict(scan["findings"])


def test_flipped_bytes(store: Store) -> None:
    with vandal(store) as it:
        it.flip_bytes(KEYS[:5])
    assert outcome(store, KEYS) == {"record-corrupt": 5, "own": len(KEYS) - 5}
    assert findings(store) == {"checksum": 5}


@pytest.mark.parametrize(("recompute", "kind"), [(False, "checksum"), (True, "unopenable")])
def test_swapped_ciphertexts(store: Store, recompute: bool, kind: str) -> None:
    with vandal(store) as it:
        it.swap(KEYS[:6], recompute=recompute)
    assert outcome(store, KEYS) == {"record-corrupt": 6, "own": len(KEYS) - 6}
    assert findings(store) == {kind: 6}


def test_a_key_that_is_gone(store: Store) -> None:
    with vandal(store) as it:
        gone = it.lose_key(KEYS[:4])
    assert gone not in Keyring.open(store[1]).ids()
    assert outcome(store, KEYS) == {"key-unavailable": 4, "own": len(KEYS) - 4}
    assert findings(store) == {"key-missing": 4}


def test_a_bulk_import_is_valid_logged_and_without_a_lock(store: Store) -> None:
    with vandal(store) as it:
        it.bulk_import([*KEYS[:30], "import/1"])
    assert outcome(store, [*KEYS, "import/1"]) == {"other": 31, "own": len(KEYS) - 30}
    assert findings(store) == {}
    opened = open_store(store[0])
    try:
        with opened.reader() as reader:
            assert reader.log_health()["intact"]
            entries = [e for batch in reader.log(NAMESPACE) for e in batch if e[9] == "legacy-import"]
    finally:
        opened.close()
    assert len(entries) == 31
    assert {(entry[3], entry[8]) for entry in entries} == {("write", None)}
    with Memory(store=store[0], keyring=store[1]) as memory:  # the store's own writers go on behind it
        assert memory.write(NAMESPACE, "after", 1) == max(entry[6] for entry in entries) + 1


def test_a_broken_index_and_lost_rows(store: Store) -> None:
    with vandal(store) as it:
        assert it.integrity_check() == ["ok"]
        it.break_index_and_lose_rows(KEYS[:7], ["import/1", "import/2"])
        assert any(damage.INDEX in text for text in it.integrity_check())
    assert outcome(store, KEYS) == {"absent": 7, "own": len(KEYS) - 7}
    opened = open_store(store[0])
    try:
        with opened.reader() as reader:
            assert any(damage.INDEX in text for text in reader.structure())
        opened.repair_structure()
        with opened.reader() as reader:
            assert reader.structure() == []
    finally:
        opened.close()


def test_values_are_the_same_again_and_varied() -> None:
    texts = [str(memories.value(NAMESPACE, key)) for key in KEYS]
    assert texts == [str(memories.value(NAMESPACE, key)) for key in KEYS]
    assert len(set(texts)) == len(KEYS)
    assert memories.value(NAMESPACE, "working/1", 1) != memories.value(NAMESPACE, "working/1", 2)
    assert min(map(len, texts)) > 60
    assert max(map(len, texts)) > 500


def test_fragments_are_in_the_texts_and_in_no_stored_byte(store: Store) -> None:
    texts = " ".join(str(memories.value(NAMESPACE, key)) for key in KEYS)
    assert [part for part in memories.FRAGMENTS if part not in texts or len(part) < 12] == []
    with open(store[0]["path"], "rb") as file:
        content = file.read()
    assert [part for part in memories.FRAGMENTS if part.encode() in content] == []


def test_a_question_finds_its_memory(store: Store) -> None:
    key = next(key for key in KEYS if key.startswith("task/"))
    with Memory(store=store[0], keyring=store[1]) as memory:
        assert memory.search(NAMESPACE, memories.question(NAMESPACE, key))[0][0] == key
