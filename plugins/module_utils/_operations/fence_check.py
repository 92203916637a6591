# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether the fence that an isolation raised holds still, before a step that relies on it.

PRIVATE to the collection. Somebody may have dropped a trigger or a rule, or given a user its rights back.
"""

from __future__ import annotations

from .._errors import CannotProceed
from .._store import Store
from . import commands


def need_fence(store: Store, namespace: str) -> None:
    """Nothing where the store has no fence of its own to look at. Errors: CannotProceed."""
    known = store.capabilities()
    if "fence-reads" not in known or "outside-fence" in known:
        return
    proof = store.prove(namespace)
    if proof["writes_refused"] and proof["reads_refused"]:
        return
    told = [str(line) for line in proof["detail"] if "accepted" in str(line) or "missing" in str(line)]
    raise CannotProceed(
        f"The fence around {namespace} does not hold any more: {'; '.join(told or map(str, proof['detail']))[:300]}.",
        f"{commands.run('rebuild', memory_namespace=namespace)} raises it again and goes on",
    )
