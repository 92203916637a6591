# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Lines of another application's file in a SQLite table, as records in the order of their keys.

PRIVATE to the collection. A file of any size is read line by line into a table, which SQLite sorts on disk; the same
table holds what is quarantined or staged (in the control file) and what is only looked at (in a copy). ``place`` is the
number of the line in the file, NULL for what came from elsewhere; ``n`` counts the lines of a record.
"""
from __future__ import annotations

import sqlite3
import typing as t

from .._codec import RecordCodec
from .._errors import InvalidInput
from .._layouts.lines import NAMELESS, LinesLayout
from .._line_records import MARK_BYTES, ORDER, Lines, mark, nameless
from .._model import Row

LONGEST_LINE: t.Final = 64 << 20
BATCH_BYTES: t.Final = 8 << 20
KEYS_PER_QUERY: t.Final = 400
LAST: t.Final = 1 << 60
TABLES: t.Final = {
    "memops_line": """CREATE TABLE memops_line (
  generation INTEGER NOT NULL,
  key TEXT NOT NULL,
  n INTEGER NOT NULL,
  place INTEGER,
  sound INTEGER NOT NULL,
  line BLOB NOT NULL,
  PRIMARY KEY (generation, key, n)
)""",
    "memops_line_unsound": "CREATE INDEX memops_line_unsound ON memops_line (generation) WHERE NOT sound",
}


class LineRows:
    """The table on one connection. Errors of its methods: sqlite3.Error."""

    def __init__(self, con: sqlite3.Connection, layout: LinesLayout) -> None:
        self.con, self.lines = con, Lines(layout)
        self._codecs: dict[str, RecordCodec] = {}

    # --- a file, in and out -------------------------------------------------------------------------------------
    def load(self, generation: int, source: t.IO[bytes]) -> None:
        """Read a file into a generation that is empty."""
        con = self.con
        con.execute("DROP TABLE IF EXISTS temp.memops_loaded")
        con.execute(
            "CREATE TEMP TABLE memops_loaded (place INTEGER PRIMARY KEY, key TEXT, sound INTEGER, line BLOB)"
        )
        order = bytearray()
        con.executemany("INSERT INTO temp.memops_loaded VALUES (?, ?, ?, ?)", self._read(source, order))
        if con.execute("SELECT 1 FROM temp.memops_loaded WHERE NOT sound").fetchone():
            # what is left of a line whose record is there whole is none of its own
            con.execute("CREATE INDEX temp.memops_loaded_key ON memops_loaded (key)")
            con.execute(
                f"UPDATE temp.memops_loaded SET key = printf('{NAMELESS}%012d/', place) || key WHERE NOT sound "
                "AND EXISTS (SELECT 1 FROM temp.memops_loaded g WHERE g.key = memops_loaded.key AND g.sound)"
            )
        con.execute(
            "INSERT INTO main.memops_line SELECT ?, key, row_number() OVER (PARTITION BY key ORDER BY place), place, "
            "sound, line FROM temp.memops_loaded ORDER BY key, place",
            (generation,),
        )
        low, high = NAMELESS, NAMELESS[:-1] + chr(ord(NAMELESS[-1]) + 1)
        known = con.execute(
            "SELECT 1 FROM temp.memops_loaded WHERE NOT sound AND key >= ? AND key < ?", (low, high)
        ).fetchone() is None
        if order:
            con.execute(
                "INSERT INTO main.memops_line VALUES (?, ?, 1, NULL, ?, ?)", (generation, ORDER, known, bytes(order))
            )
        con.execute("DROP TABLE temp.memops_loaded")

    def _read(self, source: t.IO[bytes], order: bytearray) -> t.Iterator[tuple[int, str, bool, bytes]]:
        place = 0
        ahead = source.readline(LONGEST_LINE)
        while ahead:
            raw, ahead = ahead, source.readline(LONGEST_LINE)
            place += 1
            raw = raw[:-1] if raw.endswith(b"\n") else raw
            if self.lines.blank(raw):
                continue
            key, wrong = self.lines.read(raw, last=not ahead)
            key = nameless(place) if key is None else key
            order += mark(key)
            yield place, key, wrong is None, raw

    def written(self, generation: int) -> t.Iterator[bytes]:
        """The parts of a file with a generation's lines, as its application writes it: in their order, no newline at
        the end. What came from elsewhere stands where the record ORDER says."""
        con = self.con
        con.execute("DROP TABLE IF EXISTS temp.memops_placed")
        con.execute(
            "CREATE TEMP TABLE memops_placed (key TEXT, n INTEGER, after INTEGER, nth INTEGER, PRIMARY KEY (key, n))"
        )
        if con.execute(
            "SELECT 1 FROM main.memops_line WHERE generation = ? AND place IS NULL AND key <> ? LIMIT 1",
            (generation, ORDER),
        ).fetchone():
            self._places(generation)
        between = b""
        for (line,) in con.execute(
            "SELECT line FROM main.memops_line l LEFT JOIN temp.memops_placed p ON p.key = l.key AND p.n = l.n "
            f"WHERE generation = ? AND l.key <> ? ORDER BY coalesce(place, after, {LAST}), "
            f"CASE WHEN place IS NULL THEN coalesce(nth, {LAST}) ELSE 0 END, l.key, l.n",
            (generation, ORDER),
        ):
            yield between
            yield line
            between = b"\n"
        con.execute("DROP TABLE temp.memops_placed")

    def _places(self, generation: int) -> None:
        """Behind which line of the file each record belongs that has no place there."""
        con = self.con
        found = con.execute(
            "SELECT line FROM main.memops_line WHERE generation = ? AND key = ? AND sound", (generation, ORDER)
        ).fetchone()
        if found is None:
            return
        con.create_function("memops_mark", 1, mark, deterministic=True)
        con.execute("CREATE TEMP TABLE memops_order (nth INTEGER PRIMARY KEY, mark BLOB)")
        con.execute("CREATE TEMP TABLE memops_mark (mark BLOB, n INTEGER, key TEXT, place INTEGER)")
        con.executemany(
            "INSERT INTO temp.memops_order (mark) VALUES (?)",
            ((found[0][at : at + MARK_BYTES],) for at in range(0, len(found[0]), MARK_BYTES)),
        )
        con.execute(
            "INSERT INTO temp.memops_mark SELECT memops_mark(key), n, key, place FROM main.memops_line "
            "WHERE generation = ? AND key <> ?",
            (generation, ORDER),
        )
        con.execute("CREATE INDEX temp.memops_mark_mark ON memops_mark (mark, n)")
        # the newest place so far, in the order of the snapshot
        con.execute(
            "INSERT OR IGNORE INTO temp.memops_placed SELECT key, n, coalesce(after, 0), nth FROM (SELECT m.key, m.n, "
            "m.place, o.nth, max(m.place) OVER (ORDER BY o.nth ROWS UNBOUNDED PRECEDING) AS after FROM (SELECT nth, "
            "mark, row_number() OVER (PARTITION BY mark ORDER BY nth) AS n FROM temp.memops_order) o "
            "JOIN temp.memops_mark m ON m.mark = o.mark AND m.n = o.n) WHERE place IS NULL"
        )
        con.execute("DROP TABLE temp.memops_order")
        con.execute("DROP TABLE temp.memops_mark")

    # --- records ------------------------------------------------------------------------------------------------
    def count(self, generation: int) -> int:
        found = self.con.execute(
            "SELECT count(*) FROM main.memops_line WHERE generation = ? AND n = 1", (generation,)
        ).fetchone()
        return int(found[0])

    def boundaries(self, generation: int, parts: int) -> list[str]:
        found: list[str] = []
        total = self.count(generation)
        for part in range(1, parts):
            row = self.con.execute(
                "SELECT key FROM main.memops_line WHERE generation = ? AND n = 1 ORDER BY key LIMIT 1 OFFSET ?",
                (generation, total * part // parts),
            ).fetchone()
            if row is not None and row[0] not in found:
                found.append(row[0])
        return found

    def scan(
        self,
        generation: int,
        namespace: str,
        after: str | None = None,
        until: str | None = None,
        batch: int = 2000,
        down: bool = False,
        keys: t.Sequence[str] | None = None,
    ) -> t.Iterator[list[Row]]:
        text = ""
        bound: list[t.Any] = [generation]
        for sign, edge in ((">", after), ("<=", until)):
            if edge is not None:
                text += f" AND key {sign} ?"
                bound.append(edge)
        if keys is not None:
            text += f" AND key IN ({', '.join('?' * len(keys))})"
            bound += keys
        codec = self._codecs.setdefault(namespace, RecordCodec(namespace))
        found: list[Row] = []
        parts: list[bytes] = []
        size, key, sound = 0, "", True
        cursor = self.con.cursor()
        try:
            for name, good, line in cursor.execute(
                f"SELECT key, sound, line FROM main.memops_line WHERE generation = ?{text} "
                f"ORDER BY key {'DESC' if down else 'ASC'}, n",
                bound,
            ):
                if name != key and parts:
                    found.append(_row(codec, key, sound, parts))
                    sound, parts = True, []
                    if len(found) >= batch or size > BATCH_BYTES:
                        yield found
                        found, size = [], 0
                key, sound = name, sound and bool(good)
                parts.append(line)
                size += len(line)
            if parts:
                found.append(_row(codec, key, sound, parts))
            if found:
                yield found
        finally:
            cursor.close()

    def get_many(self, generation: int, namespace: str, keys: t.Sequence[str]) -> dict[str, Row]:
        fit = [key for key in keys if (key.__class__ is str and key.isascii()) or _encodes(key)]
        found: dict[str, Row] = {}
        for start in range(0, len(fit), KEYS_PER_QUERY):
            part = fit[start : start + KEYS_PER_QUERY]
            for rows in self.scan(generation, namespace, keys=part):
                found.update((row[0], row) for row in rows)
        return found

    # --- changing -----------------------------------------------------------------------------------------------
    def put(self, generation: int, row: Row, like: int | None = None) -> None:
        """Insert or replace a record; it keeps the places that it has there, or has in the generation ``like``.

        Errors: InvalidInput for what is no record of this layout.
        """
        key, payload, checksum = row[0], row[8], row[9]
        parts = [payload] if key == ORDER else payload.split(b"\n") if payload.__class__ is bytes else []
        whole = len(payload) % MARK_BYTES == 0 if key == ORDER else all(
            self.lines.read(part) == (key, None) for part in parts
        )  # fmt: skip
        if not parts or row[6] is not None or row[7] or (checksum and not whole):
            raise InvalidInput(
                f"The record {key!r:.80} is none of this layout, or its lines are not whole.",
                "take it from a snapshot of this store",
            )
        query = "SELECT place FROM main.memops_line WHERE generation = ? AND key = ? ORDER BY n"
        places = self.con.execute(query, (generation, key)).fetchall()
        if not places and like is not None:
            places = self.con.execute(query, (like, key)).fetchall()
        self.take(generation, key)
        places += [(None,)] * (len(parts) - len(places))
        self.con.executemany(
            "INSERT INTO main.memops_line VALUES (?, ?, ?, ?, ?, ?)",
            [
                (generation, key, n, place, bool(checksum), part)
                for n, (part, (place,)) in enumerate(zip(parts, places), 1)
            ],
        )

    def take(self, generation: int, key: str) -> None:
        self.con.execute("DELETE FROM main.memops_line WHERE generation = ? AND key = ?", (generation, key))

    def clear(self, generation: int) -> None:
        self.con.execute("DELETE FROM main.memops_line WHERE generation = ?", (generation,))


def _row(codec: RecordCodec, key: str, sound: bool, parts: t.Sequence[bytes]) -> Row:
    """A record. Its checksum is made here, and does not hold for one that the application cannot use."""
    row: Row = (key, 0, 0, 0, 0, None, None, "", b"\n".join(parts))
    return (*row, codec.checksum(row) if sound else b"")


def _encodes(key: t.Any) -> bool:
    try:
        key.encode()
    except (UnicodeEncodeError, AttributeError):
        return False
    return True
