# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Random stores come back exactly; chunks are where keys say, and edits stay local."""
from __future__ import annotations

import os
import tempfile
import typing as t
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.chunks import (
    MAXIMUM,
    ROW_OVERHEAD,
    Chunker,
    NamespaceDigest,
    RowPacker,
    unpack_rows,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.packs import Squeezer, expand
from tests.support.stores import rows_of

from .conftest import NAME, Place

KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(lambda key: key[:8] != "\0memops/")
VALUES = st.one_of(st.none(), st.binary(max_size=2000), st.integers(), st.text(max_size=50))
NAMES = st.sampled_from(("n", "m", "ü/ \n"))
STEPS = st.lists(st.tuples(NAMES, st.dictionaries(KEYS, VALUES, max_size=20)), max_size=5)


@given(STEPS, STEPS)
@settings(max_examples=15)
def test_snapshot_and_restore_give_equal_rows(first: list[t.Any], second: list[t.Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Place(Path(directory))
        for steps, base in ((first, None), (second, "auto")):
            for namespace, items in steps:
                if items:
                    place.fill(namespace, items)
            taken = place.snapshot(base=base)
            found = place.open().snapshot(NAME, taken["snapshot"], place.keyring)
            target = {"engine": "sqlite", "path": f"{directory}/{base}.db"}
            for namespace in found.namespaces():
                want = rows_of(place.store, namespace)
                assert [row for rows in found.scan(namespace) for row in rows] == want
                restore.restore(
                    store_params=target, repository=place.repository, keyring=place.keyring, name=NAME,
                    snapshot_id=taken["snapshot"], namespace=namespace, create=True,
                )  # fmt: skip
                assert rows_of(target, namespace) == want
                keys = [row[0] for row in want]
                assert found.get_many(namespace, keys[::2]) == {row[0]: row for row in want[::2]}


def cut(rows: list[tuple[str, int]]) -> list[list[tuple[str, int]]]:
    chunker = Chunker()
    chunks: list[t.Any] = []
    for first in range(0, len(rows), 97):
        part = rows[first : first + 97]
        start = 0
        while start < len(part):
            chunk, start = chunker.take(part, [size for _key, size in part], start)
            chunks += [chunk] if chunk else []
    rest = chunker.rest()
    return chunks + ([rest] if rest else [])


@given(st.lists(st.integers(0, 3_000_000), max_size=200), st.integers(100, 20_000))
def test_chunks_lose_nothing_and_keep_their_bounds(sizes: list[int], typical: int) -> None:
    rows = [(f"k{number:09d}", size + ROW_OVERHEAD) for number, size in enumerate([*sizes, *[typical] * 500])]
    chunks = cut(rows)
    assert [row for chunk in chunks for row in chunk] == rows
    for chunk in chunks:
        assert len(chunk) == 1 or sum(size for _key, size in chunk) <= MAXIMUM


def test_an_average_of_some_256_kib() -> None:
    rows = [(f"agent/{number:07d}", 400 + ROW_OVERHEAD) for number in range(60_000)]
    average = 60_000 * (400 + ROW_OVERHEAD) / len(cut(rows))
    assert 180 << 10 < average < 340 << 10


@given(st.integers(0, 19_999), st.integers(1, 3))
@settings(max_examples=20)
def test_an_insert_or_a_removal_changes_few_chunks(position: int, count: int) -> None:
    rows = [(f"k{number:07d}", 400 + ROW_OVERHEAD) for number in range(20_000)]
    before = {tuple(chunk) for chunk in cut(rows)}
    more = [(f"{rows[position][0]}+{n}", 528) for n in range(count)]
    for changed in (rows[: position + 1] + more + rows[position + 1 :], rows[:position] + rows[position + count :]):
        assert len({tuple(chunk) for chunk in cut(changed)} - before) <= 6


FIELD = st.one_of(st.none(), st.integers(), st.floats(allow_nan=False), st.binary(max_size=20),
                  st.text(st.characters(), max_size=20))  # fmt: skip


@given(st.lists(st.tuples(*[FIELD] * 10), max_size=10))
def test_damaged_rows_of_any_type_can_be_packed(rows: list[t.Any]) -> None:
    back = unpack_rows(RowPacker().pack(rows))
    assert len(back) == len(rows)
    digest = NamespaceDigest()
    digest.add(rows, set(range(len(rows))))
    assert digest.count == len(rows) and len(digest.hexdigest()) == 64


@given(st.binary(max_size=100_000), st.integers(0, 50_000))
def test_squeeze_and_expand(data: bytes, zeros: int) -> None:
    for plain in (data, data + bytes(zeros), os.urandom(zeros // 10) + data):
        assert expand(Squeezer().squeeze(plain)) == plain


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=30), st.randoms())
def test_the_digest_does_not_depend_on_order_or_parts(sums: list[bytes], chance: t.Any) -> None:
    rows = [("k", 1, 1, 0, 0, None, None, "id", b"", one) for one in sums]
    whole = NamespaceDigest()
    whole.add(rows)
    chance.shuffle(rows)
    parts = NamespaceDigest()
    middle = len(rows) // 2
    for part in (rows[:middle], rows[middle:]):
        one = NamespaceDigest()
        one.add(part)
        parts.merge(one.count, one.total)
    assert parts.hexdigest() == whole.hexdigest()
