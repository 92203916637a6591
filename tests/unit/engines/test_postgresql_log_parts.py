# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What PostgreSQL puts together of the log is what its rows are, whatever stands in them."""
from __future__ import annotations

import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.postgresql_log_parts import log_part
from ansible_collections.memops.agent_memory.plugins.module_utils._log_parts import LogPart, entries_of
from ansible_collections.memops.agent_memory.plugins.module_utils._model import Row
from tests.unit.engines.postgresql_help import new_postgresql, raw

COLUMNS = "id, at, namespace, operation, key, key_rest, epoch, sequence, digest, lock, actor, reason, checksum"
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=12) | st.sampled_from(
    ["", 'a"\\/\b\f\n\r\t\x1f\x7f', "\u2028é𐀀", "12", "null"]
)
SOUND = TEXT.map(str.encode)
PLAIN = st.text(
    st.characters(blacklist_categories=("C", "Z"), blacklist_characters='"\\') | st.just(" "), max_size=12
)  # printable, in words of Unicode
ANY = SOUND | st.sampled_from([b"\0", b"a\0b", b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80"])


def entry(
    text: st.SearchStrategy[bytes], namespace: st.SearchStrategy[bytes], rest: st.SearchStrategy[t.Any],
    checksum: st.SearchStrategy[bytes], operation: st.SearchStrategy[str] = TEXT,
) -> st.SearchStrategy[tuple[t.Any, ...]]:  # fmt: skip
    return st.tuples(
        INT64, namespace, operation, st.none() | text, rest, st.none() | INT64, st.none() | INT64,
        st.none() | st.binary(max_size=40), st.none() | INT64, text, st.none() | text, checksum,
    )  # fmt: skip


SIXTEEN = st.binary(min_size=16, max_size=16)
SOUND_ENTRY = entry(SOUND, st.just(b"n"), st.none(), SIXTEEN)
PLAIN_ENTRY = entry(PLAIN.map(str.encode), st.just("né".encode()), st.none(), SIXTEEN, PLAIN)
ODD_ENTRY = entry(ANY, st.sampled_from([b"n", b"m", b"\xff"]), st.none() | SOUND, SIXTEEN | st.binary(max_size=20))


@pytest.fixture(scope="module")
def log(postgresql_server):
    """A store's reader over a log into which a test puts what it likes."""
    store = new_postgresql(postgresql_server)
    con = raw(postgresql_server, store, "memops")

    def put(entries: t.Sequence[tuple[t.Any, ...]]) -> list[tuple[t.Any, ...]]:
        """Ids leave gaps; those above 700 lie in a later block."""
        con.execute(f"TRUNCATE {store.sql.log}")
        rows = [(1 + 700 * number, *one) for number, one in enumerate(entries)]
        with con.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {store.sql.log} ({COLUMNS}) VALUES ({', '.join(['%s'] * 13)})", rows)
        return rows

    yield store, put
    con.close()
    store.close()


def exactly(rows: t.Iterable[t.Any]) -> list[str]:
    return [repr(tuple(row)) for row in rows]


@settings(max_examples=60)
@given(st.lists(PLAIN_ENTRY | SOUND_ENTRY | ODD_ENTRY, min_size=1, max_size=6), st.integers(0, 900))
def test_parts_are_the_rows(log, entries, after):
    store, put = log
    until = put(entries)[-1][0]
    with store.reader() as reader:
        found: list[Row] = []
        for part in reader.log_parts(after, until):
            if isinstance(part, LogPart):
                made = entries_of(part.fields())
                assert (part.rows, part.first, part.last) == (len(made), made[0][0], made[-1][0])
                found += made
            else:
                found += part
        wanted = [row for page in reader.log(after_id=after) for row in page]
        assert exactly(found) == exactly(wanted)
        assert exactly(row for page in reader.log_rows(after, until, batch=2) for row in page) == exactly(wanted)
        assert reader.log_count(after, until) == len(wanted)
        assert reader.log_end() == until


@settings(max_examples=20)
@given(st.lists(PLAIN_ENTRY, min_size=1, max_size=5))
def test_plain_entries_of_one_namespace_are_put_together(log, entries):
    store, put = log
    until = put(entries)[-1][0]
    with store.reader() as reader:
        part = log_part(reader._session, store.sql.log, 0, until)
        assert part is not None
        assert exactly(entries_of(part.fields())) == exactly(row for page in reader.log() for row in page)


@pytest.mark.parametrize(
    ("column", "value"),
    [("key", b"\0"), ("key", b"\xff"), ("key_rest", b"r"), ("actor", b"\xc0\x80"), ("reason", b"a\0"),
     ("key", b'"'), ("actor", b"\\"), ("reason", b"\n"), ("operation", 'a","b'),
     ("namespace", b"m"), ("checksum", b"c" * 15)],
)  # fmt: skip
def test_what_json_would_change_is_left_to_the_rows(log, postgresql_server, column, value):
    store, put = log
    sound = (7, b"n", "write", b"k", None, 1, 2, b"d" * 32, 3, b"a", None, b"c" * 16)
    put([sound, sound])
    with store.reader() as reader:
        assert log_part(reader._session, store.sql.log, 0, 2000) is not None
    with raw(postgresql_server, store, "memops") as con:
        con.execute(f"UPDATE {store.sql.log} SET {column} = %s WHERE id = 701", (value,))
    with store.reader() as reader:
        assert log_part(reader._session, store.sql.log, 0, 2000) is None
        assert len([row for page in reader.log_rows(0, 2000) for row in page]) == 2  # the transaction goes on
