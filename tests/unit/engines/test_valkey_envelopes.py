# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Records unpacked a page at a time are what each member is by itself, whatever was done to some of them."""
from __future__ import annotations

import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_bulk import packed_rows
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_values import END, Envelopes
from ansible_collections.memops.agent_memory.plugins.module_utils._model import Row
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.chunks import RowPacker

ENVELOPES = Envelopes()
NUMBER = st.integers(0, 1 << 60)
RECORD = st.tuples(
    st.text(st.sampled_from("abé\0\n"), min_size=1, max_size=4), NUMBER, NUMBER, NUMBER, NUMBER, st.none() | NUMBER,
    st.none() | NUMBER, st.just("k"), st.binary(max_size=40), st.binary(min_size=32, max_size=32),
)  # fmt: skip
DAMAGE: t.Sequence[t.Callable[[bytes, int], bytes]] = (
    lambda member, at: member[:at],
    lambda member, at: member[:at] + b"\xc0" + member[at:],
    lambda member, at: member[:at] + bytes([member[at] ^ 1]) + member[at + 1 :],
    lambda member, at: member[: member.find(END) + 2] + b"\xa9123456789",  # nine fields, it seems
    lambda member, at: member + member[member.find(END) + 2 :],
    lambda member, at: b"\xff" + member,
    lambda member, at: b"",
)


def one_by_one(members: t.Sequence[bytes]) -> list[Row]:
    found: dict[bytes, Row] = {}
    for member in members:
        row = ENVELOPES.row(member)
        if row is not None:
            found.setdefault(member[: member.find(END)], row)
    return list(found.values())


@settings(max_examples=60)
@given(st.lists(RECORD, max_size=8), st.data())
def test_a_page_is_its_members(records: list[Row], data: st.DataObject) -> None:
    members = [ENVELOPES.member(record) for record in records]
    for _time in range(data.draw(st.integers(0, 2)) if members else 0):
        place = data.draw(st.integers(0, len(members) - 1))
        if members[place]:
            at = data.draw(st.integers(0, len(members[place]) - 1))
            members[place] = data.draw(st.sampled_from(DAMAGE))(members[place], at)
    members.sort()
    found = ENVELOPES.rows(members)
    assert list(map(repr, found)) == list(map(repr, one_by_one(members)))


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("damage", DAMAGE)
def test_one_damaged_member_of_a_page(place: int, damage: t.Callable[[bytes, int], bytes]) -> None:
    members = [
        ENVELOPES.member((key, 1, 2, 3, 4, None, None, "k", b"\xc0" * 9, bytes(32))) for key in ("a", "b", "c")
    ]
    for at in range(1, len(members[place])):
        page = [*members[:place], damage(members[place], at), *members[place + 1 :]]
        assert list(map(repr, ENVELOPES.rows(page))) == list(map(repr, one_by_one(page)))


@settings(max_examples=30)
@given(st.lists(RECORD, min_size=1, max_size=8, unique_by=lambda record: record[0]))
def test_sound_members_are_their_records(records: list[Row]) -> None:
    assert ENVELOPES.rows([ENVELOPES.member(record) for record in records]) == records


@settings(max_examples=60)
@given(st.lists(RECORD, min_size=1, max_size=6), st.sampled_from([0, 27, 40, 300, 70_000]), st.data())
def test_members_become_the_rows_of_a_chunk(records: list[Row], longer: int, data: st.DataObject) -> None:
    """And damaged ones what no chunk of these rows holds."""
    records = [(row[0] + "x" * longer, *row[1:]) for row in records]
    members, chunk = [ENVELOPES.member(row) for row in records], RowPacker().items(records)
    assert packed_rows(members) == chunk
    place = data.draw(st.integers(0, len(members) - 1))
    at = data.draw(st.integers(0, len(members[place]) - 1))
    damaged = data.draw(st.sampled_from(DAMAGE))(members[place], at)
    assert damaged == members[place] or packed_rows([*members[:place], damaged, *members[place + 1 :]]) != chunk
