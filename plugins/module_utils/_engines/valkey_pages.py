# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Pages of a Valkey store's sorted sets and streams: their bounds, the commands that bring them, how they are cut.

PRIVATE to the collection.
"""
from __future__ import annotations

import typing as t

from .._model import LogEntry, Row
from .valkey_connect import packed
from .valkey_values import AT_ONCE, END, key_bytes

BATCH_BYTES = 8 << 20
#: Members of KEYS[1] in order from ARGV[1] to ARGV[2] (ARGV[5] "1": backwards), at most ARGV[3] of them and not many
#: more bytes than ARGV[4]: one by one, for sets in which single records are big.
SLOWLY = """
local out, size, from = {}, 0, ARGV[1]
while #out < tonumber(ARGV[3]) and size <= tonumber(ARGV[4]) do
  local one
  if ARGV[5] == '1' then one = redis.call('ZRANGE', KEYS[1], from, ARGV[2], 'BYLEX', 'REV', 'LIMIT', 0, 1)
  else one = redis.call('ZRANGE', KEYS[1], from, ARGV[2], 'BYLEX', 'LIMIT', 0, 1) end
  if #one == 0 then break end
  out[#out + 1] = one[1]
  size = size + #one[1]
  from = '(' .. one[1]
end
return out
"""


def behind(key: str) -> bytes:
    """The bound behind everything that belongs to a key."""
    return b"(" + key_bytes(key) + b"\0\1"


def beyond(member: bytes, down: bool) -> bytes:
    """The bound behind (``down``: before) everything that belongs to the member's key."""
    end = member.find(END)
    if down:
        return b"(" + member[: end + 2 if end > 0 else None]
    return b"(" + (member[:end] + b"\0\1" if end > 0 else member)


def page_of(
    records: str, start: bytes, stop: bytes, batch: int, largest: int, down: bool, script: str = "EVAL"
) -> bytes:
    """The command for the next members; in their number bounded by what they may weigh."""
    if batch * largest > AT_ONCE:
        few = AT_ONCE // largest
        if few < 100:
            return packed(script, SLOWLY, 1, records, start, stop, batch, BATCH_BYTES, int(down))
        batch = few
    return packed("ZRANGE", records, start, stop, "BYLEX", *(["REV"] if down else []), "LIMIT", 0, batch)


def cut(found: list[Row], batch: int) -> t.Iterator[list[Row]]:
    rows: list[Row] = []
    size = 0
    for row in found:
        rows.append(row)
        size += len(row[8]) if row[8].__class__ is bytes else 0
        if len(rows) >= batch or size > BATCH_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def one_by_one(pages: t.Iterator[list[LogEntry]]) -> t.Iterator[LogEntry]:
    for page in pages:
        yield from page


def batches(entries: t.Iterable[LogEntry], size: int) -> t.Iterator[list[LogEntry]]:
    out: list[LogEntry] = []
    for entry in entries:
        out.append(entry)
        if len(out) >= size:
            yield out
            out = []
    if out:
        yield out
