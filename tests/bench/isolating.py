# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""`ansible-playbook` with the one task isolate, beside a play whose only task is a module that does nothing; and the
operation alone, in a namespace and in one of a tenth of its size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._operations import incident, isolate
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store

from .data import NAMESPACE, Place
from .measure import Side, Table, ratio, said, turns

NOTHING = """#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
AnsibleModule(argument_spec={}, supports_check_mode=True).exit_json(changed=False)
"""


def compare(table: Table, place: Place, rounds: int) -> None:
    params = place.params("sealed.db")
    os.makedirs(place.path("library"), exist_ok=True)
    with open(place.path("library/nothing.py"), "w", encoding="ascii") as file:
        file.write(NOTHING)
    tasks: dict[str, t.Any] = {
        "isolate": {"memops.agent_memory.isolate": {"store": {"path": params["path"]}, "namespace": NAMESPACE}},
        "nothing": {"nothing": None},
    }
    for name, task in tasks.items():
        play = [{"name": name, "hosts": "localhost", "connection": "local", "gather_facts": False,
                 "tasks": [{"name": name, **task}]}]  # fmt: skip
        with open(place.path(f"{name}.yml"), "w", encoding="utf-8") as file:
            json.dump(play, file)
    found = turns(
        rounds,
        {
            "isolate": Side(lambda: _release(params), lambda _none: _play(place, "isolate")),
            "nothing": Side(lambda: None, lambda _none: _play(place, "nothing")),
        },
    )
    _release(params)
    table.add("isolate, command to proven fence : a play that does nothing", ratio(found["isolate"], found["nothing"]),
              2.0, detail=said(found))  # fmt: skip


def _play(place: Place, name: str) -> None:
    command = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", "localhost,",
               "-e", f"ansible_python_interpreter={sys.executable}", place.path(f"{name}.yml")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place.folder,
                          env={**os.environ, "ANSIBLE_LIBRARY": place.path("library")})  # fmt: skip
    if done.returncode or (name == "isolate") != ("changed=1" in done.stdout):
        raise RuntimeError(done.stdout + done.stderr)


def growth(table: Table, place: Place, small: dict[str, t.Any], whole: dict[str, t.Any], rounds: int,
           server: int | None = None) -> None:  # fmt: skip
    """The operation alone, from opening the store to the proof. It takes milliseconds: many rounds."""

    def side(params: dict[str, t.Any]) -> Side:
        return Side(lambda: _release(params, place.folder), lambda _none: _isolate(params, place.folder))

    found = turns(max(25, rounds), {"all": side(whole), "a tenth": side(small)}, server)
    for params in (small, whole):
        _release(params, place.folder)
    table.add("isolate, all records : a tenth of them", ratio(found["all"], found["a tenth"]), 1.1,
              detail=said(found))  # fmt: skip


def _isolate(params: dict[str, t.Any], folder: str) -> None:
    store = open_store(params)
    run = incident.Run("bench:1:1", "bench", work_dir=folder)
    isolate.isolate(store=store, store_params=params, namespace=NAMESPACE, run=run)
    store.close()


def _release(params: dict[str, t.Any], folder: str | None = None) -> None:
    """Lift the fence of a former round and close its incident."""
    store = open_store(params)
    opened = [one for one in store.incidents(NAMESPACE) if one.state == "open"]
    if opened:
        run = incident.Run(
            "bench:1:1", "bench", incident=opened[0].incident, takeover=opened[0].attempt, work_dir=folder
        )
        isolate.release(store=store, store_params=params, namespace=NAMESPACE, run=run, force=True)
        if any(one.state == "open" for one in store.incidents(NAMESPACE)):
            store.close_incident(incident.claim(store, NAMESPACE, run))
    store.close()
