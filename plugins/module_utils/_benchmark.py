# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of a namespace (JSON Lines of ``key`` or ``query`` with ``expect``) and the lexical search behind them.

PRIVATE to the collection. One case a line::

    {"key": "user/1/name", "expect": "Ada"}
    {"key": "user/1/photo", "expect": "sha256:<64 hex digits>"}
    {"query": "favourite colour", "expect": "green", "namespace": "agent-7"}

``expect`` of a key is the value itself, or the SHA-256 of its bytes (text and JSON: of its compact JSON form);
``"match": "contains"`` asks only that the value's text contains it. ``expect`` of a query is the key, or a text within
the value, of one of the first TOP results. Search is linear: it opens every record once, for all queries together.
"""
from __future__ import annotations

import hashlib
import heapq
import json
import math
import re
import typing as t

from ._codec import RecordCodec, check_key, check_namespace, decode_value
from ._errors import InvalidInput, KeyUnavailable, RecordCorrupt
from ._keyring import Keyring
from ._model import DELETED, EXPIRES, KEY, KEY_ID, PAYLOAD, UPDATED, Row
from ._store import Reader

TOP = 10
MAX_FAILED = 100
RESERVED = "\0memops/"  # keys of the collection's own (the canary): applications neither see nor touch them
_WORDS = re.compile(r"\w+")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LINE_LIMIT = 64 << 20


class Case(t.NamedTuple):
    line: int  # of the file, from 1 (of a list: the position)
    namespace: str | None  # None: any
    key: str | None
    query: str | None
    expect: t.Any
    match: str  # equals | contains


# --- records ----------------------------------------------------------------------------------------------------------
def serves(row: Row, now: int, serving_ttl: float | None = None) -> str:
    """What an application gets for an intact row at ``now`` (µs): "hit", "miss" (tombstone) or "expired"."""
    if row[DELETED] is not None:
        return "miss"
    if row[EXPIRES] is not None and row[EXPIRES] <= now:
        return "expired"
    if serving_ttl is not None and now - row[UPDATED] >= serving_ttl * 1e6:
        return "expired"
    return "hit"


def open_body(codec: RecordCodec, keyring: Keyring, row: Row) -> bytes:
    """The encoded value, after checksum and authentication. Errors: RecordCorrupt, KeyUnavailable."""
    if not codec.intact(row):
        raise RecordCorrupt("The checksum does not hold: the stored record was changed.", "rebuild the namespace")
    return keyring.open_payload(row[PAYLOAD], codec.head(row), row[KEY_ID])


def open_value(codec: RecordCodec, keyring: Keyring, row: Row) -> t.Any:
    """The value that an application wrote. Errors: RecordCorrupt, KeyUnavailable."""
    body = open_body(codec, keyring, row)
    try:
        return decode_value(body)
    except (ValueError, RecursionError):
        raise RecordCorrupt("The opened value is in no known encoding.", "rebuild the namespace") from None


def value_text(value: t.Any) -> str:
    """A value as text to search in: text as it is, bytes as UTF-8 as far as they are, the rest as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return json.dumps(value, ensure_ascii=False)


# --- search -----------------------------------------------------------------------------------------------------------
class Search:
    """Ranks records for many queries in one pass; of each query only the best ``limit`` are held.

    The score is the share of the query's words in key and value (a word that comes again counts a little more), plus 1
    when the whole query stands there as it is. Equal scores: the smaller key first.
    """

    def __init__(self, queries: t.Sequence[str], limit: int) -> None:
        self._limit = limit
        self._phrases = [" ".join(query.casefold().split()) for query in queries]
        self._words = [sorted(set(_WORDS.findall(phrase))) for phrase in self._phrases]
        self._wanted: dict[str, list[int]] = {}
        for number, words in enumerate(self._words):
            for word in words:
                self._wanted.setdefault(word, []).append(number)
        self._wordless = [n for n, words in enumerate(self._words) if not words and self._phrases[n]]
        self._heaps: list[list[tuple[float, _Late, t.Any]]] = [[] for _turn in queries]

    def add(self, key: str, text: str, keep: t.Callable[[int], t.Any]) -> None:
        """Offer one record; ``keep(query number)`` says what is held of it when it ranks."""
        text = f"{key}\n{text}".casefold()
        counts: dict[str, int] = {}
        for word in _WORDS.findall(text):
            if word in self._wanted:
                counts[word] = counts.get(word, 0) + 1
        touched = {number for word in counts for number in self._wanted[word]}
        touched.update(n for n in self._wordless if self._phrases[n] in text)
        for number in touched:
            words = self._words[number]
            score = sum(1 - 0.5 ** counts[w] for w in words if w in counts) / len(words) if words else 0.0
            if all(word in counts for word in words) and self._phrases[number] in text:
                score += 1.0
            heap, item = self._heaps[number], (score, _Late(key))
            if len(heap) < self._limit:
                heapq.heappush(heap, (*item, keep(number)))
            elif item > heap[0][:2]:
                heapq.heapreplace(heap, (*item, keep(number)))

    def results(self, number: int) -> list[tuple[str, float, t.Any]]:
        """(key, score, what keep returned) of a query, best first."""
        best = sorted(self._heaps[number], key=lambda item: item[:2], reverse=True)
        return [(late.key, round(score, 6), kept) for score, late, kept in best]


class _Late:
    """A key that compares in reverse, so that among equal scores the smaller key wins."""

    __slots__ = ("key",)

    def __init__(self, key: str) -> None:
        self.key = key

    def __lt__(self, other: _Late) -> bool:
        return other.key < self.key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Late) and other.key == self.key

    __hash__ = None  # type: ignore[assignment]


# --- benchmark --------------------------------------------------------------------------------------------------------
def parse(source: str | t.Iterable[t.Any]) -> list[Case]:
    """The cases of a JSON Lines file (``source`` is its path) or of an iterable of mappings or lines.

    Empty lines are passed over. Errors: InvalidInput with the line number.
    """
    if not isinstance(source, str):
        return [_case(number, one) for number, one in enumerate(source, 1) if not _blank(one)]
    try:
        with open(source, "rb") as file:
            return [_case(number, line) for number, line in enumerate(file, 1) if not _blank(line)]
    except OSError as exc:
        raise InvalidInput(
            f"The benchmark {source:.200} cannot be read: {exc.strerror}.", "set memory_benchmark to a JSON Lines file"
        ) from None
    except ValueError:
        raise InvalidInput(f"{source!r:.200} is no path.", "set memory_benchmark to a JSON Lines file") from None


def concerning(cases: t.Iterable[Case], namespace: str) -> list[Case]:
    """The cases of one namespace: where there is none, nobody gave a benchmark of it."""
    return [case for case in cases if case.namespace in (None, namespace)]


def _blank(line: t.Any) -> bool:
    return isinstance(line, (str, bytes)) and not line.strip()


def _case(number: int, line: t.Any) -> Case:
    def bad(why: str) -> InvalidInput:
        return InvalidInput(f"Line {number} of the benchmark is bad: {why}.", "correct that line")

    case = line
    if isinstance(line, (str, bytes)):
        if len(line) > _LINE_LIMIT:
            raise bad("it is too long")
        try:
            case = json.loads(line)
        except (ValueError, RecursionError):
            raise bad("it is not JSON") from None
    if not isinstance(case, t.Mapping):
        raise bad("it is not a JSON object")
    unknown = [repr(name) for name in case if name not in ("key", "query", "expect", "namespace", "match")]
    if unknown:
        raise bad(f"it has an unknown field {unknown[0]:.60}")
    key, query, match = case.get("key"), case.get("query"), case.get("match", "equals")
    if "expect" not in case:
        raise bad("it has no 'expect'")
    if (key is None) == (query is None):
        raise bad("it needs either 'key' or 'query'")
    if match not in ("equals", "contains"):
        raise bad("'match' must be equals or contains")
    try:
        namespace = None if case.get("namespace") is None else check_namespace(case["namespace"])
        if key is not None:
            check_key(key)
    except InvalidInput as exc:
        raise bad(exc.message.rstrip(".")) from None
    expect = case["expect"]
    if query is not None:
        if not isinstance(query, str) or not query.strip():
            raise bad("'query' must be a text with a word in it")
        if not isinstance(expect, str) or not expect:
            raise bad("'expect' of a query must be a key or a text")
    elif match == "contains" and (not isinstance(expect, str) or not expect):
        raise bad("'expect' must be a text for match contains")
    elif isinstance(expect, str) and expect.startswith("sha256:") and not _DIGEST.fullmatch(expect):
        raise bad("'expect' starts like a digest, but is not sha256: and 64 lower-case hex digits")
    return Case(number, namespace, key, query, expect, match)


def evaluate(
    reader: Reader,
    keyring: Keyring,
    namespace: str,
    cases: t.Sequence[Case],
    *,
    now: int | None = None,
    serving_ttl: float | None = None,
) -> dict[str, t.Any]:
    """Run the cases that concern ``namespace`` against one reader, quarantined or not, and log nothing.

    ``now`` (µs) decides what is expired, default the reader's time. Returns {"cases": n, "passed": n,
    "accuracy": passed / cases or None without a case, "failed": [{"line": n, "why": text}] (the first MAX_FAILED)}.
    A damaged record fails its case; it raises nothing. Errors: NamespaceUnknown, StoreDamaged.
    """
    now = reader.at if now is None else now
    mine = concerning(cases, namespace)
    codec = RecordCodec(namespace)
    why: dict[int, str] = {}  # position in mine → reason
    keyed = [(at, case) for at, case in enumerate(mine) if case.key is not None]
    for start in range(0, len(keyed), 200):
        part = keyed[start : start + 200]
        rows = reader.get_many(namespace, sorted({case.key for _at, case in part if case.key}))
        for at, case in part:
            reason = _check_key_case(case, rows.get(case.key or ""), codec, keyring, now, serving_ttl)
            if reason:
                why[at] = reason
    queried = [(at, case) for at, case in enumerate(mine) if case.query is not None]
    if queried:
        search = Search([case.query or "" for _at, case in queried], TOP)
        for rows_ in reader.scan(namespace):
            for row in rows_:
                if row[KEY].startswith(RESERVED):
                    continue
                try:
                    value = open_value(codec, keyring, row) if row[DELETED] is None else None
                except (RecordCorrupt, KeyUnavailable):
                    continue
                if row[DELETED] is not None or serves(row, now, serving_ttl) != "hit":
                    continue
                text = value_text(value)
                search.add(row[KEY], text, _keeper(queried, row[KEY], text))
        for number, (at, _c) in enumerate(queried):
            results = search.results(number)
            if not any(kept for _key, _score, kept in results):
                why[at] = f"not among the first {len(results)} results" if results else "no result"
    failed = [{"line": mine[at].line, "why": why[at]} for at in sorted(why)]
    passed = len(mine) - len(failed)
    return {
        "cases": len(mine),
        "passed": passed,
        "accuracy": passed / len(mine) if mine else None,
        "failed": failed[:MAX_FAILED],
    }


def _keeper(queried: t.Sequence[tuple[int, Case]], key: str, text: str) -> t.Callable[[int], bool]:
    """Of a ranked record only whether it is what the query expects: values are not held."""

    def keep(number: int) -> bool:
        expect = queried[number][1].expect
        return key == expect or expect.casefold() in text.casefold()

    return keep


def _check_key_case(
    case: Case, row: Row | None, codec: RecordCodec, keyring: Keyring, now: int, serving_ttl: float | None
) -> str | None:
    """Why the case fails, None when it passes. Values stay out of the reason: reports are read by many."""
    if row is None:
        return "absent"
    try:
        body = open_body(codec, keyring, row)
        served = serves(row, now, serving_ttl)
        if served != "hit":
            return "deleted" if served == "miss" else "expired"
        value = decode_value(body)
    except RecordCorrupt:
        return "corrupt"
    except KeyUnavailable:
        return "its record key is missing"
    except (ValueError, RecursionError):
        return "corrupt"
    if case.match == "contains":
        return None if case.expect.casefold() in value_text(value).casefold() else "does not contain what is expected"
    if isinstance(case.expect, str) and _DIGEST.fullmatch(case.expect):
        same = "sha256:" + hashlib.sha256(body[1:]).hexdigest() == case.expect
    elif isinstance(value, bytes):
        same = isinstance(case.expect, str) and value == case.expect.encode("utf-8", "surrogatepass")
    else:
        same = same_value(value, case.expect)
    return None if same else "another value"


def same_value(value: t.Any, expect: t.Any) -> bool:
    """JSON equality: 1 is 1.0, but true is not 1."""
    if isinstance(value, dict) and isinstance(expect, t.Mapping):
        return value.keys() == expect.keys() and all(same_value(value[name], expect[name]) for name in value)
    if isinstance(value, list) and isinstance(expect, (list, tuple)):
        return len(value) == len(expect) and all(map(same_value, value, expect))
    if isinstance(value, bool) or isinstance(expect, bool):
        return value is expect
    if isinstance(value, float) and isinstance(expect, float) and math.isnan(expect):
        return False
    return bool(value == expect)
