# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether a memory object does what the layout ``python`` relies on. For the owner of such an object.

    python -m ansible_collections.memops.agent_memory.plugins.module_utils.conformance agent.memory:make \\
        --argument path=/tmp/memory.db --operator-argument operator=true

Everything happens in scratch namespaces that are emptied again. The exit status is 0 when every rule passes, 1 when
one fails, 2 when one could not be verified. In a test of the object:
``assert not failures(check("agent.memory:make"))``.
"""
from __future__ import annotations

import argparse
import json
import secrets
import sys
import typing as t

from ._conformance import FAIL, MUST, NONE, PASS, RULES, UNKNOWN, Case, Failed, NotAsked, Unknown
from ._engines.python_remote import NEEDED, spec_of
from ._errors import InvalidInput, MemoryOpsError

NEEDLESS: t.Final = {
    "get_access_logs": "a diagnosis has no log of the object",
    "rotate_keys": "its keys cannot be rotated from here",
    "evaluate_benchmark": "the hit rate comes from probes alone",
    "set_ttl": "a quarantine cannot lower the TTL",
    "quarantine": "nothing in the object keeps the application away; isolate needs memory_outside_fence",
    "list_namespaces": "memory_store.namespaces has to say which there are",
}


class Result(t.NamedTuple):
    """One rule: the method that it is about, its name, pass | fail | could-not-verify | not-asked, and why."""

    method: str
    rule: str
    verdict: str
    why: str


def check(
    factory: str,
    arguments: t.Mapping[str, t.Any] | None = None,
    operator_arguments: t.Mapping[str, t.Any] | None = None,
    *,
    rotate: bool = False,
    timeout: float = 30.0,
    python_path: t.Sequence[str] = (),
    rules: t.Sequence[str] = (),
) -> list[Result]:
    """Every rule, in order, or only those of these names. ``rotate``: call rotate_keys too, which works on all that
    the object has.

    Errors: InvalidInput for a factory or a rule that cannot be meant.
    """
    known = ["made", *(rule.__name__.replace("_", " ") for _methods, rule in RULES), "clean up"]
    odd = [name for name in rules if name not in known]
    if odd:
        raise InvalidInput(f"There is no rule {odd[0]!r:.80}.", f"choose from: {'; '.join(known)}")
    spec = spec_of(
        {"factory": factory, "arguments": arguments, "operator_arguments": operator_arguments,
         "python_path": python_path, "call_timeout": timeout}
    )  # fmt: skip
    case = Case(spec, f"memops-conformance-{secrets.token_hex(6)}", rotate)
    results: list[Result] = []
    try:
        try:
            for view in ("application", "operator"):
                case.here.ask(view, "offers")
        except MemoryOpsError as exc:
            return [Result(factory, "made", FAIL, exc.message)]
        results.append(Result(factory, "made", PASS, "the factory makes the object"))
        lacks = [method for method in MUST if not case.has(method)]
        results += [Result(one, "there", FAIL, f"it is missing, and {NEEDED[one]} needs it") for one in lacks]
        for methods, rule in RULES:
            name = rule.__name__.replace("_", " ")
            if rules and name not in rules:
                continue
            missing = next((one for one in methods if not case.has(one)), None)
            if missing in NEEDLESS or (missing is not None and methods[0] not in MUST):
                results.append(Result(methods[0], name, NONE, f"the object has no {missing}: {_without(methods[0])}"))
            elif missing is not None:
                results.append(Result(methods[0], name, UNKNOWN, f"the object has no {missing}"))
            else:
                results.append(Result(methods[0], name, *_tried(case, rule)))
        left = case.clean() if case.written else None
        results.append(Result("delete", "clean up", PASS if left is None else FAIL, left or "nothing of it is left"))
    finally:
        case.close()
    return results


def _without(method: str) -> str:
    return NEEDLESS.get(method, "the rule is not asked for")


def _tried(case: Case, rule: t.Callable[[Case], str]) -> tuple[str, str]:
    try:
        return PASS, rule(case)
    except Failed as exc:
        return FAIL, str(exc)
    except Unknown as exc:
        return UNKNOWN, str(exc)
    except NotAsked as exc:
        return NONE, str(exc)
    except MemoryOpsError as exc:
        return FAIL, exc.message.rstrip(".")


def failures(results: t.Iterable[Result]) -> list[Result]:
    """Those that failed."""
    return [one for one in results if one.verdict == FAIL]


def _named(text: str) -> tuple[str, t.Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def main(words: t.Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="conformance", description="Whether a memory object does what is relied on.")
    parser.add_argument("factory", help="what makes the object: package.module:factory")
    for option, what in (("--argument", "what the factory is called with"),
                         ("--operator-argument", "what it is called with besides for operators")):  # fmt: skip
        parser.add_argument(option, type=_named, action="append", default=[], metavar="NAME=VALUE",
                            help=f"{what}; a value that is JSON is taken as such")  # fmt: skip
    parser.add_argument("--python-path", action="append", default=[], metavar="FOLDER", help="where to import it from")
    parser.add_argument("--rotate", action="store_true", help="call rotate_keys too: it works on all that there is")
    parser.add_argument("--rule", action="append", default=[], metavar="NAME", help="try only the rules of these names")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds that one call may take (30)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    given = parser.parse_args(words)
    try:
        results = check(
            given.factory, dict(given.argument), dict(given.operator_argument), rotate=given.rotate,
            timeout=given.timeout, python_path=given.python_path, rules=given.rule,
        )  # fmt: skip
    except InvalidInput as exc:
        parser.error(str(exc))
    if given.json:
        sys.stdout.write(json.dumps([one._asdict() for one in results], indent=2) + "\n")
    else:
        for one in results:
            sys.stdout.write(f"{one.verdict:<17} {one.method}, {one.rule}: {one.why}\n")
    verdicts = {one.verdict for one in results}
    return 1 if FAIL in verdicts else 2 if UNKNOWN in verdicts else 0


if __name__ == "__main__":
    raise SystemExit(main())
