# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong around another application's JSON Lines files, and what their lines say about themselves, in words.

PRIVATE to the collection.
"""
from __future__ import annotations

import os
import sqlite3
import typing as t

from .._line_records import ORDER, escape
from .._model import NamespaceState
from .._words import counted
from .jsonl_connect import is_placing, state_of
from .jsonl_files import Files
from .jsonl_rows import LineRows
from .sqlite_structure import MOST_LINES, _integrity

SHOWN: t.Final = 5
REPLACED: t.Final = "\ufffd".encode()


def structure(con: sqlite3.Connection | None, files: Files) -> list[str]:
    """Findings in words, at most MOST_LINES."""
    lines = [] if con is None else _integrity(con)
    for state in states(con, files):
        file = files.of(state.name)
        if state.state != "serving" and not file.fenced():
            lines.append(
                f"the fence of {state.name!r:.80} is gone: "
                + ("a file lies in its place" if os.path.lexists(file.path) else "nothing lies in its place")
            )
        elif state.state == "serving" and file.fenced() and file.source(is_placing(con, state.name)) is None:
            lines.append(
                f"the file of {state.name!r:.80} is gone: a fence stands in its place, and {file.taken} is missing"
            )
    return lines[:MOST_LINES]


def states(con: sqlite3.Connection | None, files: Files) -> t.Iterator[NamespaceState]:
    names = set(files.names())
    if con is not None:
        names.update(row[0] for row in con.execute("SELECT name FROM memops_namespace"))
    for name in sorted(names):
        yield state_of(con, files, name)


def remarks(rows: LineRows, generation: int) -> list[str]:
    con = rows.con
    found = []
    unsound = con.execute(
        "SELECT count(*) FROM main.memops_line WHERE generation = ? AND NOT sound AND key <> ?", (generation, ORDER)
    ).fetchone()[0]
    last = con.execute("SELECT max(place) FROM main.memops_line WHERE generation = ?", (generation,)).fetchone()[0]
    for key, place, line in con.execute(
        "SELECT key, place, line FROM main.memops_line WHERE generation = ? AND NOT sound AND key <> ? "
        "ORDER BY place LIMIT ?",
        (generation, ORDER, SHOWN),
    ):
        named = "" if rows.lines.read(line, place == last).key is None else f" ({key:.80})"
        found.append(f"line {place}{named}: {rows.lines.read(line, place == last).wrong}")
    if unsound > SHOWN:
        found.append(f"{counted(unsound - SHOWN, 'more line')} cannot be read")
    several = con.execute(
        "SELECT key, count(*) OVER () FROM main.memops_line WHERE generation = ? AND n = 2 LIMIT 1", (generation,)
    ).fetchone()
    if several:
        have = counted(several[1], "record has", "records have")
        found.append(f"{have} more than one line, such as {several[0]!r:.80}")
    found += _relations(rows, generation)
    replaced = con.execute(
        "SELECT count(*) FROM main.memops_line WHERE generation = ? AND key <> ? AND instr(line, ?)",
        (generation, ORDER, REPLACED),
    ).fetchone()[0]
    if replaced:
        hold = counted(replaced, "line holds", "lines hold")
        found.append(f"{hold} U+FFFD, which the server writes for bytes that were no UTF-8")
    return found


def _relations(rows: LineRows, generation: int) -> list[str]:
    """Lines that refer to a record that is not there. Only the names of ends, which keys hold, are looked at."""
    con = rows.con
    found = []
    for kind, of, ends in rows.lines.ends():
        con.create_function("memops_part", 2, lambda key, nth: key.split("/")[nth + 1], deterministic=True)
        missing = " OR ".join(
            f"NOT EXISTS (SELECT 1 FROM main.memops_line e WHERE e.generation = ?1 AND e.key = ?2 || "
            f"memops_part(l.key, {end}))"
            for end in ends
        )
        count, example = con.execute(
            "SELECT count(*), min(key) FROM main.memops_line l WHERE generation = ?1 AND n = 1 "
            f"AND key >= ?3 AND key < ?4 AND ({missing})",
            (generation, f"{escape(of)}/", f"{kind}/", f"{kind}0"),
        ).fetchone()
        if count:
            refer = counted(count, "line refers", "lines refer")
            found.append(f"{refer} to an {of} that is not there, such as {example!r:.80}")
    return found
