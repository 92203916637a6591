# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Lines of another application's JSON Lines file as records: their names as text, and what is wrong with them. No I/O.

PRIVATE to the collection.

A *name* is the line's kind and the values of its key fields, each escaped (``%`` and ``/`` as ``%25`` and ``%2F``, an
empty one as ``%-``, half of a surrogate pair as ``%uD800``, one of over a mebibyte as ``%#`` and its SHA-256), joined
by ``/``. A *payload* is the lines of that name as they stand, joined by newlines. The record ORDER says in which order
the lines of the file were: eight bytes for each, which are a hash of its name.
"""
from __future__ import annotations

import hashlib
import json
import re
import typing as t

from ._layouts.lines import NAMELESS, Kind, LinesLayout

ORDER: t.Final = "\0memops/order"
LONGEST: t.Final = 1 << 20
#: as a crash leaves it: nobody knows how many lines were there
_HOLE: t.Final = re.compile("\0\0|[\0-\x08\x0b\x0c\x0e-\x1f\x7f\udc80-\udcff]{4}")
MARK_BYTES: t.Final = 8
#: what JavaScript's trim() takes away: a line of nothing else is none
BLANK: t.Final = (
    "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f"
    "\u3000\ufeff"
)
_HALF = re.compile("[\ud800-\udfff]")
_STRING: t.Final = r'("(?:[^"\\\x00-\x1f]|\\.)*")'


class Line(t.NamedTuple):
    """``key`` None: nobody can tell which record it was. ``wrong``: why its application cannot use the line."""

    key: str | None
    wrong: str | None


def escape(part: str) -> str:
    if len(part) > LONGEST:
        return "%#" + hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()
    part = part.replace("%", "%25").replace("/", "%2F") if part else "%-"
    return _HALF.sub(lambda half: f"%u{ord(half[0]):04X}", part)


def mark(key: str) -> bytes:
    """What stands for a record's lines in ORDER."""
    return hashlib.blake2b(key.encode(), digest_size=MARK_BYTES).digest()


def nameless(place: int) -> str:
    return f"{NAMELESS}{place:012d}"


class Lines:
    """Reads the lines of one layout."""

    def __init__(self, layout: LinesLayout) -> None:
        self._kinds = {kind.name: kind for kind in layout.kinds}
        self._starts = {
            kind.name: re.compile(
                rf'\{{"{kind.field}":"{kind.name}",' + ",".join(f'"{field}":{_STRING}' for field in kind.written)
            )
            for kind in layout.kinds
        }
        fields = {field for kind in layout.kinds for field in (kind.field, *kind.texts, *kind.lists)}
        #: what stands in a line once, as quotes inside of texts have a backslash before them
        self._once = re.compile(r'(?<!\\)"(' + "|".join(sorted(fields)) + r')":')

    def ends(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Of kinds that refer to others: (kind, kind that it refers to, which parts of its key are those names)."""
        return [
            (kind.name, kind.refers, tuple(kind.key.index(field) for field in kind.ends))
            for kind in self._kinds.values()
            if kind.ends
        ]

    def blank(self, raw: bytes) -> bool:
        if raw and raw[0] == 0x7B:
            return False
        try:
            return not raw.decode().strip(BLANK)
        except UnicodeDecodeError:
            return False

    def read(self, raw: bytes, last: bool = False) -> Line:
        """``last``: it is the file's last line. Of one that is cut off, or has a hole, nobody knows how much is
        missing: it has no name."""
        wrong = None
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text, wrong = raw.decode("utf-8", "surrogateescape"), "bytes that are no UTF-8"
        try:
            item = json.loads(text, parse_constant=_refuse, parse_int=float)
        except (ValueError, RecursionError) as exc:
            if isinstance(exc, json.JSONDecodeError):
                if last and (exc.pos >= len(text.rstrip()) or exc.msg.startswith("Unterminated")):
                    wrong = "cut off, as by a write that did not end"
                wrong = wrong or f"no JSON: {re.sub(' at$', '', exc.msg)} at character {exc.pos}"
            return Line(None if last else self._left(text), wrong or "no JSON")
        kind, wrong_shape = self._shape(item)
        key = self._key(kind, item) if kind is not None else None
        if wrong and kind and key:
            damaged = _HALF.search("".join(item[field] for field in kind.key))  # the name itself
            key = None if damaged or _HOLE.search(text) else key
        return Line(key, wrong or wrong_shape)

    def _shape(self, item: t.Any) -> tuple[Kind | None, str | None]:
        """Of which kind it is, as far as anybody can tell, and what is wrong with it."""
        if not isinstance(item, dict):
            return None, "no JSON object"
        for kind in self._kinds.values():
            if item.get(kind.field) == kind.name:
                for field in kind.texts:
                    if not isinstance(item.get(field), str):
                        return kind, f"its {field} is no text"
                for field in kind.lists:
                    found = item.get(field)
                    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
                        return kind, f"its {field} is no list of texts"
                return kind, None
        fields = sorted({kind.field for kind in self._kinds.values()})
        alike = [kind for kind in self._kinds.values() if all(one in item for one in (*kind.texts, *kind.lists))]
        return (alike[0] if len(alike) == 1 else None), f"its {' and '.join(fields)} is none that is known"

    def _key(self, kind: Kind | None, item: t.Mapping[str, t.Any]) -> str | None:
        if kind is None or not all(isinstance(item.get(field), str) for field in kind.key):
            return None
        return "/".join([kind.name, *(escape(item[field]) for field in kind.key)])

    def _left(self, text: str) -> str | None:
        """The name of a record of which a line has only the beginning whole. What may be left of several lines has
        none."""
        fields = self._once.findall(text)
        if _HOLE.search(text) or len(fields) != len(set(fields)):
            return None
        for name, start in self._starts.items():
            found = start.match(text)
            if found:
                try:
                    parts = [json.loads(part) for part in found.groups()]
                except ValueError:
                    return None
                if any(_HALF.search(part) for part in parts):
                    return None
                return self._key(self._kinds[name], dict(zip(self._kinds[name].written, parts)))
        return None


def _refuse(word: str) -> t.Any:
    raise ValueError(word)
