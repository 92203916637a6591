# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Rehearse with the application's own keys: open every value that it encrypted, give all of them another key, compare.

PRIVATE to the collection. In a scratch store alone. The other key is made here and kept nowhere.
"""

from __future__ import annotations

import hashlib
import secrets
import typing as t

from .._application_ciphers import ApplicationKey
from .._application_seals import OPEN, SHUT, Seals, seals_of
from .._errors import CannotProceed, RecordCorrupt
from .._layouts.custom import CUSTOM
from .._model import KEY, PAYLOAD
from .._store import open_store
from .integrity_rows import shown
from .rotate_application import rotate_application

NAMED = 3
KEYS = ("application_key", "application_key_file")


class Values(t.NamedTuple):
    """The values of a namespace that the application encrypted. ``digest``: of what they say, with their names."""

    encrypted: int
    shut: int
    named: list[str]  # the first of those that are shut
    digest: str


class Found(t.NamedTuple):
    """What is said of the drill: ``faults`` are (namespace, why), ``skipped`` what could not be tried."""

    values: dict[str, Values]
    faults: list[tuple[str, str]]
    skipped: list[str]


def keys_in(store_params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Of memory_store where the application's keys are, or nothing."""
    return {name: store_params[name] for name in KEYS if store_params.get(name)}


def open_values(params: t.Mapping[str, t.Any], namespaces: t.Iterable[str]) -> Found:
    """Try the keys that ``params`` (of a scratch store, with its layout and keys) names on every value.

    Errors: KeyUnavailable (they cannot be read), InvalidInput (they can be no such keys).
    """
    # without a key every value that is encrypted is shut: that is how they are counted
    seals = None if params["layout"] == CUSTOM else seals_of({**params, "scratch": False})
    if seals is None:
        return Found({}, [], [])
    values = {name: _look(params, seals, name) for name in namespaces}
    encrypted = sum(one.encrypted for one in values.values())
    if not seals.keys:
        said = (
            f"the application encrypted {encrypted} of the values, and no key of it is given: they were neither opened "
            "nor given another key (memory_store.application_key_file)"
        )
        return Found({}, [], [said] if encrypted else [])
    faults = [
        (name, f"{_count(one.shut)} with a key that is not given, or damaged, first {', '.join(one.named)}")
        for name, one in values.items()
        if one.shut
    ]
    return Found(values, faults, [])


def rotate_values(params: t.Mapping[str, t.Any], before: t.Mapping[str, Values]) -> tuple[int, list[tuple[str, str]]]:
    """Give every value of these namespaces a key that is made here, and look that it says the same with that key alone.

    Returns how many were encrypted anew, and (namespace, why) for what went wrong. Errors: those of the scratch store.
    """
    text = secrets.token_hex(16)  # a key of both ciphers
    seals = seals_of({**params, "application_key": text, "application_key_file": None})
    if seals is None:
        raise AssertionError("these values were opened")
    try:
        turned = rotate_application(
            store_params=params, new_key=ApplicationKey(text, "the drill"), namespace=list(before)
        )
    except CannotProceed as exc:
        return 0, [("", f"the rotation of the application's key stops: {exc.message}")]
    faults = [] if turned["complete"] else [("", f"the rotation of the application's key: {turned['reasons'][-1]}")]
    for name, one in before.items():
        after = _look(params, seals, name)
        if after.shut:
            faults.append((name, f"{_count(after.shut)} do not open with the key that the rotation gave them"))
        elif not one.shut and after != one:
            faults.append((name, "after the rotation of the application's key its values are not what they were"))
    return turned["records"]["rotated"], faults


def _count(values: int) -> str:
    return f"{values} value{'s' * (values != 1)} that the application encrypted"


def _look(params: t.Mapping[str, t.Any], seals: Seals, namespace: str) -> Values:
    encrypted = shut = 0
    named: list[str] = []
    digest = hashlib.sha256()
    store = open_store(params)
    try:
        with store.reader() as reader:
            for rows in reader.scan(namespace):
                for row in rows:
                    try:
                        found = seals.look(row[PAYLOAD])
                    except RecordCorrupt:
                        continue  # no record of tables; the scan tells of what is damaged
                    if found.state not in (OPEN, SHUT):
                        continue
                    encrypted += 1
                    if found.state == SHUT:
                        shut += 1
                        named += [shown(row[KEY])] if len(named) < NAMED else []
                        continue
                    for part in (row[KEY].encode("utf-8", "surrogateescape"), found.plain):
                        digest.update(len(part).to_bytes(8, "big") + part)
    finally:
        store.close()
    return Values(encrypted, shut, named, digest.hexdigest())
