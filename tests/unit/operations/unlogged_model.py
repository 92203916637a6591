# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What must hold of any store without a log of writes: a model of its repair, and processes that are killed in it."""

from __future__ import annotations

import os
import traceback

from hypothesis import strategies as st

from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.unit.operations.runbook import NS, attempt

NAMES = [f"k{number}" for number in range(12)]
NAMED = frozenset(NAMES[::2])  # the keys of a window that names keys


def histories(*changes):
    """Arguments of ``given``: what happens before the newest snapshot and after it, and what the operator asks for."""
    change = st.tuples(st.sampled_from(NAMES), st.sampled_from(changes))
    return {
        "between": st.lists(change, max_size=5),
        "damage": st.lists(change, max_size=8),
        "inside": st.sampled_from(["nothing", "onset", "keys"]),
        "absent": st.sampled_from(["auto", "keep", "restore"]),
        "strategy": st.sampled_from(["soft", "hard"]),
    }


def rebuild(site, namespace, inside, onset, strategy, absent):
    """The whole runbook, with the window of the damage that ``inside`` names."""
    window = {"nothing": None, "onset": Window(onset=onset), "keys": Window(keys=NAMED)}[inside]
    run = attempt()
    options = {"diagnose": {"window": window}, "plan": {"strategy": strategy, "absent": absent, "accept_loss": True}}
    for name in ("isolate", "forensic", "diagnose", "plan", "apply"):
        site.step(name, run, namespace=namespace, **options.get(name, {}))
    site.step("release", run, namespace=namespace, force=True)


def expected(now, newest, inside, absent, broken=lambda value: False):
    """{name: value} after the rebuild, of those before it and those in the newest snapshot."""
    result = {}
    for name in NAMES:
        meant = inside == "onset" or (inside == "keys" and name in NAMED)
        there, copy = now.get(name), newest.get(name)
        if there is None:
            back = copy is not None and (absent == "restore" or (meant and absent == "auto"))
            there = copy if back else None
        elif meant or broken(there):
            there = copy
        if there is not None:
            result[name] = there
    return result


def in_child(prepare, work):
    """The wait status of a process of its own that does ``prepare`` and then ``work``."""
    pid = os.fork()
    if not pid:
        try:
            prepare()
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    return os.waitpid(pid, 0)[1]


def after(site):
    """A new attempt that knows the former one to be dead."""
    with site.open() as store:
        return attempt(takeover=next((one.attempt for one in store.incidents(NS) if one.state == "open"), None))
