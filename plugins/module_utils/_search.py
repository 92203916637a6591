# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Ask an agent framework's own search, with the application's own embedding function, what it finds of a namespace.

PRIVATE to the collection. The application's factory makes its object around a connection of the operator's, which
sees a quarantined namespace and writes nothing, in a process of the application's own Python (``_search_child.py``).
Whatever keeps it from answering is why there is no answer, never a wrong one.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import math
import os
import signal
import subprocess
import sys
import typing as t

from . import _benchmark, _search_child
from ._codec import RecordCodec, encode_value
from ._errors import CapabilityMissing, InvalidInput
from ._layouts.tables import Root
from ._model import CHECKSUM, EXPIRES, PAYLOAD
from ._store import Reader, Store
from ._store_own import Framework, HasOwnSearch, Place
from ._table_records import name_of, unpack
from ._table_values import readable, sqlite_value

TIMEOUT: t.Final = 60.0  # seconds for all cases together, the start of the interpreter included
TOP: t.Final = 10
Answer = t.Dict[str, t.Any]


class NoAnswer(Exception):
    """The application's search could not be asked, and why."""


class Search(t.NamedTuple):
    """What ``memory_search`` says."""

    factory: str
    arguments: dict[str, t.Any]
    interpreter: str
    path: tuple[str, ...]
    top: int
    timeout: float


def search_of(given: t.Mapping[str, t.Any] | None) -> Search | None:
    """Errors: InvalidInput."""
    said = {name: value for name, value in (given or {}).items() if value not in (None, "", [], {})}
    if not said:
        return None
    factory = str(said.get("factory") or "")
    module, _colon, name = factory.partition(":")
    if not all(part.isidentifier() for text in (module, name) for part in text.split(".")):
        raise InvalidInput(
            f"memory_search.factory is {said.get('factory')!r:.80}, not package.module:factory.",
            "name the function that makes the application's memory object around a connection, such as "
            "agent.memory:for_probes",
        )
    arguments = said.get("arguments") or {}
    if not isinstance(arguments, t.Mapping) or not all(isinstance(one, str) for one in arguments):
        raise InvalidInput("memory_search.arguments is no mapping of names to values.", "write it as name: value")
    interpreter = os.path.expanduser(str(said.get("interpreter") or sys.executable))
    if not os.path.isabs(interpreter) or not os.access(interpreter, os.X_OK):
        raise InvalidInput(
            f"memory_search.interpreter {interpreter:.200} is no program that can be run on this host.",
            "set it to the absolute path of the application's Python, such as /srv/agent/venv/bin/python",
        )
    top, timeout = _number(said, "top", TOP, 1000), _number(said, "timeout", TIMEOUT, 300)
    path = tuple(os.path.abspath(os.path.expanduser(str(one))) for one in said.get("python_path") or ())
    for one in path:
        if not os.path.exists(one):
            raise InvalidInput(
                f"The folder {one:.200} of memory_search.python_path is not on this host.",
                "copy the factory there, or correct memory_search.python_path",
            )
    return Search(factory, dict(arguments), interpreter, path, int(top), timeout)


def _number(said: t.Mapping[str, t.Any], name: str, default: float, most: float) -> float:
    try:
        value = float(said.get(name, default))
    except (TypeError, ValueError):
        value = math.nan
    if not 1 <= value <= most:
        raise InvalidInput(
            f"memory_search.{name} is {said.get(name)!r:.40}.", f"set it to a number from 1 to {most:g}"
        )
    return value


def need_search(store: Store, benchmark: t.Any, search: Search | None, namespace: str) -> None:
    """Errors: CapabilityMissing where a benchmark cannot be asked at all; those of _benchmark.parse."""
    words = store.capabilities()
    if not benchmark or "encryption" in words:
        return
    cases = _benchmark.concerning(_benchmark.parse(benchmark), namespace)
    if not cases:
        return
    if "search" not in words:
        raise CapabilityMissing(
            f"The benchmark cannot read {namespace}: the values of its layout are the application's own, and it has no "
            "search that could be asked.",
            "leave memory_benchmark out",
        )
    if search is None and any(case.query is not None for case in cases):
        raise CapabilityMissing(
            f"The benchmark has queries, and only the application's own search can answer them for {namespace}.",
            "set memory_search (factory and interpreter), or leave memory_benchmark out",
        )


def evaluate(
    store: Store, search: Search | None, namespace: str, cases: t.Sequence[_benchmark.Case], reader: Reader
) -> dict[str, t.Any]:
    """Run the cases that concern ``namespace``, as _benchmark.evaluate does: {cases, passed, accuracy, failed}, and
    ``asked``: "search" when there were queries, else "benchmark". Values of keys are read as they lie in the tables.

    Errors: NoAnswer when one of them could not be asked.
    """
    if not isinstance(store, HasOwnSearch) or "search" not in store.capabilities():
        raise NoAnswer("this store has no search that could be asked")
    mine = _benchmark.concerning(cases, namespace)
    queries = [case for case in mine if case.query is not None]
    framework = store.framework()
    why = {case.line: _judged_key(case, reader, namespace, framework) for case in mine if case.query is None}
    if queries:
        if search is None:
            raise NoAnswer("memory_search is not set, and only the application's own search can answer the queries")
        with store.searching(namespace, search.timeout) as place:
            visible, *answers = _asked(search, framework, place, [case.query for case in queries])
        if not visible["any"] and _holds(reader, namespace):
            raise NoAnswer(
                f"what {search.factory} made does not see the records of {namespace:.80}: it must use the connection "
                "that it is given"
            )
        for case, answer in zip(queries, answers):
            why[case.line] = _judged_query(case, answer["found"], namespace, framework.root)
    failed = [{"line": line, "why": reason} for line, reason in sorted(why.items()) if reason]
    passed = len(mine) - len(failed)
    return {
        "cases": len(mine),
        "passed": passed,
        "accuracy": passed / len(mine) if mine else None,
        "failed": failed[: _benchmark.MAX_FAILED],
        "asked": "search" if queries else "benchmark",
    }


def _holds(reader: Reader, namespace: str) -> bool:
    """Whether there is a record that the application must see, if it is not to be taken for one that lost them all."""
    for rows in reader.scan(namespace, batch=500):
        for row in rows:
            if row[CHECKSUM] and (row[EXPIRES] is None or row[EXPIRES] > reader.at):
                return True
    return False


def _judged_query(case: _benchmark.Case, found: t.Sequence[t.Any], namespace: str, root: Root) -> str | None:
    """Why the case fails. Values stay out of the reason: reports are read by many."""
    for columns, text in found:
        names = {name_of(root, namespace, columns), *(columns[key] for key in root.key)}
        if case.expect in names or case.expect.casefold() in text.casefold():
            return None
    return f"not among the first {len(found)} results" if found else "no result"


def _judged_key(case: _benchmark.Case, reader: Reader, namespace: str, framework: Framework) -> str | None:
    row = reader.get_many(namespace, [case.key or ""]).get(case.key or "")
    if row is None:
        return "absent"
    if not RecordCodec(namespace).intact(row):
        return "corrupt"
    if row[EXPIRES] is not None and row[EXPIRES] <= reader.at:
        return "expired"
    value = remembered(row[PAYLOAD], framework)
    if case.match == "contains":
        there = case.expect.casefold() in _benchmark.value_text(value).casefold()
        return None if there else "does not contain what is expected"
    if isinstance(case.expect, str) and case.expect.startswith("sha256:"):
        same = "sha256:" + hashlib.sha256(encode_value(value)[1:]).hexdigest() == case.expect
    else:
        same = _benchmark.same_value(value, case.expect)
    return None if same else "another value"


def remembered(payload: bytes, framework: Framework) -> t.Any:
    """What the framework calls the value of a record."""
    column = framework.root.payload[0]
    engine, tables = unpack(payload)
    if engine == "sqlite":
        value = sqlite_value(tables[0].rows[0][[name for name, _kind in tables[0].columns].index(column)])
    else:
        value = readable(payload)[tables[0].name][0][column]
    if isinstance(value, (str, bytes)):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    field = framework.root.remembered
    return value.get(field) if field and isinstance(value, dict) else value


# --- the process ------------------------------------------------------------------------------------------------------
def _asked(
    search: Search, framework: Framework, place: Place, queries: t.Sequence[str | None]
) -> list[Answer]:
    """Whether it sees anything, and an answer for each query, in their order. Errors: NoAnswer."""
    request = {
        "factory": search.factory, "arguments": search.arguments, "path": search.path, "top": search.top,
        "adapter": framework.adapter, "within": place.within, "connection": place.connection,
        "variables": place.variables, "secrets": place.secrets, "queries": queries,
    }  # fmt: skip
    try:
        text = json.dumps(request).encode("ascii")
    except (TypeError, ValueError):
        raise InvalidInput(
            "memory_search.arguments holds what is no plain value.", "use texts, numbers, lists and mappings"
        ) from None
    answers: list[Answer] = []
    for line in _run(search, text).splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if not isinstance(answer, dict):  # what that interpreter said of itself as it started
            continue
        wrong = answer.get("broken") or answer.get("error")
        if wrong:
            what = f"{search.factory} cannot be made" if "broken" in answer else "the search raised"
            raise NoAnswer(f"{what}: {wrong}")
        if answer.get("done"):
            return answers
        answers.append(answer)
    raise NoAnswer(f"{search.factory} ended its process")


def _run(search: Search, request: bytes) -> bytes:
    """Errors: NoAnswer."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "PYTHON"))}
    try:
        process = subprocess.Popen(
            [search.interpreter, "-c", inspect.getsource(_search_child)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=kept,
            start_new_session=True,
        )
    except OSError as exc:
        raise NoAnswer(f"{search.interpreter} cannot be started: {exc.strerror}") from None
    with process:
        try:
            return process.communicate(request, timeout=search.timeout)[0]
        except BaseException as exc:
            os.killpg(process.pid, signal.SIGKILL)  # with whatever it started
            if isinstance(exc, subprocess.TimeoutExpired):
                why = f"{search.factory} did not answer within {search.timeout:g} s (memory_search.timeout)"
                raise NoAnswer(why) from None
            raise
