# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""An application whose keys lie in all slots of a real Valkey Cluster: a plain client, that knows nothing of us."""

from __future__ import annotations

import secrets

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.keyspace_dump import canonical
from tests.support.valkey_cluster import Tagged
from tests.unit.operations.keyspace_help import FAR, KeyspaceSite

#: Names of records that a Cluster hashes in some special way, or that look like something else.
ODD = (
    "{", "}", "{}", "{}{a}", "a{b}c", "}{x}", "{{x}}", "{x", "{a}{b}", "x}", "two words", b"\xff{\x00}\xfe", b"{\xff",
)  # fmt: skip


class ClusterSite(KeyspaceSite):
    """``third``: in which third of the slots what is the collection's own lies. ``pattern``: with TOKEN in it, another
    one than the usual."""

    def __init__(self, folder, cluster, third=1, pattern=None):
        token = cluster.tag(third, f"ops{secrets.token_hex(4)}x")[4:-1]
        super().__init__(folder, Tagged(cluster), token)
        self.cluster = cluster
        self.own_prefix = f"{{ops{self.token}}}"
        if pattern is not None:
            self.store["pattern"] = pattern.replace("TOKEN", self.token)

    def fill(self, namespace="agent-7", count=30):
        super().fill(namespace, count)
        for name in ODD:
            self.app.set(self.key(name, namespace), b"value of " + (name if isinstance(name, bytes) else name.encode()))
        self.app.expireat(self.key("{}{a}", namespace), FAR)

    def fill_more(self, count, namespace="agent-7"):
        self.app.mset_nonatomic({self.key(f"more {number}", namespace): number for number in range(count)})

    def values(self, namespace="agent-7"):
        """As ``dumps``, with the members of sets and hash tables in order: another node has them in another one."""
        return {key: (canonical(dump), end) for key, (dump, end) in self.dumps(namespace).items()}

    def own(self):
        return list(self.root.scan_iter(f"{{*}}{self.own_prefix}:*", count=1000))

    def let_go(self):
        """Whoever was killed keeps the hold for five seconds; nobody waits for them here."""
        self.root.delete(f"{self.own_prefix}:store:hold")

    def patterns(self):
        own = self.own_prefix
        return (f"mem{self.token}:*", f"{{*}}:{self.token}:*", f"{own}:*", f"{{*}}{own}:*")
