# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks and the ranking behind their queries."""
from __future__ import annotations

import hashlib
import json

import hypothesis.strategies as st
import pytest
from hypothesis import given

from ansible_collections.memops.agent_memory.plugins.module_utils._benchmark import Search, evaluate, parse
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import InvalidInput, NamespaceUnknown


@pytest.fixture
def filled(memory):
    memory.write_many(
        "a",
        {
            "name": "Ada",
            "profile": {"languages": ["en", "fr"], "active": True, "age": 1},
            "photo": b"\x89PNG",
            "colour": "Her favourite colour is green.",
        },
    )
    memory.write("a", "short", "soon gone", ttl=10)
    memory.write("a", "deleted", "x")
    memory.delete("a", "deleted")
    return memory


CASES = [
    ({"key": "name", "expect": "Ada"}, None),
    ({"key": "name", "expect": "ada"}, "another value"),
    ({"key": "name", "expect": "ad", "match": "contains"}, None),
    ({"key": "name", "expect": "Bob", "match": "contains"}, "does not contain what is expected"),
    ({"key": "profile", "expect": {"age": 1.0, "active": True, "languages": ["en", "fr"]}}, None),
    ({"key": "profile", "expect": {"age": True, "active": True, "languages": ["en", "fr"]}}, "another value"),
    ({"key": "photo", "expect": "sha256:" + hashlib.sha256(b"\x89PNG").hexdigest()}, None),
    ({"key": "name", "expect": "sha256:" + hashlib.sha256(b'"Ada"').hexdigest()}, None),
    ({"key": "name", "expect": "sha256:" + "0" * 64}, "another value"),
    ({"key": "none", "expect": None}, "absent"),
    ({"key": "deleted", "expect": "x"}, "deleted"),
    ({"query": "favourite colour", "expect": "GREEN"}, None),
    ({"query": "favourite colour", "expect": "colour"}, None),
    ({"query": "favourite colour", "expect": "red"}, "not among the first 1 results"),
    ({"query": "zebra", "expect": "x"}, "no result"),
]


@pytest.mark.parametrize(("case", "why"), CASES)
def test_one_case(filled, case, why):
    result = filled.evaluate_benchmark("a", [case])
    assert result["failed"] == ([{"line": 1, "why": why}] if why else [])
    assert (result["cases"], result["passed"], result["accuracy"]) == (1, int(not why), float(not why))


def test_file_namespaces_and_expiry(filled, place, tmp_path):
    path = tmp_path / "cases.jsonl"
    cases = [
        {"key": "short", "expect": "soon gone"},
        {"key": "x", "expect": 1, "namespace": "b"},
        {"key": "name", "expect": "Ada", "namespace": "a"},
    ]
    path.write_text("\n\n".join(map(json.dumps, cases)))
    assert filled.evaluate_benchmark("a", str(path))["accuracy"] == 1.0
    place.clock.turn(11)
    assert filled.evaluate_benchmark("a", str(path)) == {
        "cases": 2, "passed": 1, "accuracy": 0.5, "failed": [{"line": 1, "why": "expired"}],
    }  # fmt: skip
    logged = [line["operation"] for line in filled.get_access_logs("a")]
    assert logged == ["write"] * 6 + ["delete"]  # what a benchmark asks is no read of the application


def test_nothing_to_ask_is_no_accuracy(filled, tmp_path):
    (tmp_path / "empty").write_text("\n\n")
    for cases in (str(tmp_path / "empty"), [], [{"key": "k", "expect": 1, "namespace": "other"}]):
        assert filled.evaluate_benchmark("a", cases) == {"cases": 0, "passed": 0, "accuracy": None, "failed": []}
    with pytest.raises(NamespaceUnknown):
        filled.evaluate_benchmark("unknown", [{"key": "k", "expect": 1}])


def test_only_the_first_hundred_failures_are_listed(filled):
    result = filled.evaluate_benchmark("a", [{"key": f"no{n}", "expect": n} for n in range(500)])
    assert (result["cases"], result["passed"], len(result["failed"])) == (500, 0, 100)
    assert result["failed"][99]["line"] == 100


def test_operators_ask_in_quarantine_and_of_a_damaged_store(filled, place):
    place.sql("UPDATE memory_records SET payload = x'00' WHERE key = 'name'")
    place.sql("UPDATE memory_records SET expires = 'never' WHERE key = 'photo'")
    place.fence("a")
    store = open_store(place.store)
    asked = [{"key": "name", "expect": "Ada"}, {"key": "photo", "expect": ""}, {"query": "colour", "expect": "green"}]
    cases = parse(asked)
    with store.reader() as reader:
        result = evaluate(reader, Keyring.open(place.keyring), "a", cases, now=place.clock())
    store.close()
    assert result["failed"] == [{"line": 1, "why": "corrupt"}, {"line": 2, "why": "corrupt"}]


@pytest.mark.parametrize(
    "line",
    [
        "{", "[]", "7", '"x"', "{}", '{"key": "k"}', '{"expect": 1}', '{"key": "k", "query": "q", "expect": "x"}',
        '{"key": "", "expect": 1}', '{"key": 5, "expect": 1}', '{"query": " ", "expect": "x"}',
        '{"query": "q", "expect": 5}', '{"query": "q", "expect": ""}', '{"key": "k", "expect": 5, "match": "contains"}',
        "[" * 9999, "\x00",
        '{"key": "k", "expect": 1, "match": "regex"}', '{"key": "k", "expect": "sha256:short"}',
        '{"key": "k", "expect": 1, "namespace": ""}', '{"key": "k", "expects": 1, "expect": 1}',
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "cases.jsonl"
    path.write_text('{"key": "k", "expect": 1}\n\n' + line + "\n")
    with pytest.raises(InvalidInput, match=r"^Line 3 of the benchmark is bad: [^\n]*$") as caught:
        parse(str(path))
    assert caught.value.next_step


def test_unreadable_files(tmp_path):
    for path in (str(tmp_path / "none"), str(tmp_path), "nul\0"):
        with pytest.raises(InvalidInput):
            parse(path)
    (tmp_path / "latin").write_bytes(b'{"key": "\xe4", "expect": 1}')
    with pytest.raises(InvalidInput, match="Line 1"):
        parse(str(tmp_path / "latin"))


word = st.sampled_from(["red", "green", "blue", "car", "house", "tree"])
words = st.lists(word, min_size=1, max_size=6).map(" ".join)


short_keys = st.text("abc", min_size=1, max_size=3)


@given(records=st.dictionaries(short_keys, words, max_size=15), queries=st.lists(words, max_size=4))
def test_one_pass_ranks_as_a_full_sort_would(records, queries):
    many = Search(queries, 3)
    for key, text in records.items():
        many.add(key, text, lambda _number, text=text: text)
    for number, query in enumerate(queries):
        every = Search([query], len(records) + 1)
        for key in reversed(list(records)):
            every.add(key, records[key], lambda _number, key=key: records[key])
        full = every.results(0)
        assert full == sorted(full, key=lambda found: (-found[1], found[0]))
        assert {key for key, _score, _text in full} == {
            key for key, text in records.items() if set(query.split()) & set(text.split())
        }
        assert many.results(number) == full[:3]
