#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: store_retention
short_description: Drop old entries of the access log, old tombstones, and what old incidents left
version_added: 1.0.0
description:
  - Every read and write of an application is an entry of the store's access log. This drops those that are older than
    is asked for and that the newest good snapshot of every namespace holds.
  - Nothing goes while a namespace is quarantined, while one is in no good snapshot, or when the newest good snapshot is
    of another copy of the store. The result says which of these it was.
  - Every deletion leaves a tombstone, so that no copy of the record comes back. This drops those that are older than is
    asked for and than every snapshot of their namespace that the repository has, removed ones that can be brought back
    included. So no snapshot is left that could bring the record back.
  - No tombstone goes while an incident is open, while the newest snapshot is suspect, or while a snapshot cannot be
    read, nor of a namespace of which a snapshot of another copy of the store is kept.
  - An incident leaves what it replaced or isolated in the store, and a folder on the memory host whose files name keys.
    Of incidents that were closed longer ago than O(keep_incidents) these go, with what the incident's facts say of
    single records, and a former generation that no watch dropped. When it was, up to which write it judged, and with
    what verdict stays.
  - Nothing that an incident left goes while its namespace is quarantined or has an open incident. An incident stays as
    long as records that were isolated in it are not back, and as long as a snapshot of it is held
    (M(memops.agent_memory.snapshot_hold)).
  - A forensic snapshot that was taken into O(spool) while the repository was away goes with what its incident left,
    under the same conditions.
  - Each is looked at once a day, or each thirtieth of its time.
  - On layouts that keep no access log and no tombstones in the store these parts are without effect.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  keep_reads:
    description: Seconds for which the entries of reads are kept. Left out, they stay for good.
    type: float
  keep_writes:
    description:
      - Seconds for which the entries of writes and deletions are kept, and with them what applications soft-deleted.
        Left out, they stay for good. They stay at least as long as those of reads.
      - From then on a record that is older is proven by the same record in a good snapshot, no longer by the log. Keep
        snapshots that long.
    type: float
  keep_incidents:
    description: Seconds since an incident was closed for which what it left is kept. Left out, it stays for good.
    type: float
  spool:
    description:
      - The directory on the memory host that takes forensic snapshots while the repository is away. Those of incidents
        that were closed longer ago than O(keep_incidents) go. Left out, none is looked at.
      - Where none was taken again for the repository, a warning says that the only evidence went.
    type: path
  keep_tombstones:
    description:
      - Seconds for which tombstones are kept at least. Left out, they stay for good.
      - Longer than a copy of the store is ever away, and than any snapshot takes.
    type: float
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Keep reads in the log for thirty days, writes for a year, tombstones and what incidents left for ninety days
  memops.agent_memory.store_retention:
    store:
      path: /var/lib/agents/memory.db
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
    keep_reads: 2592000
    keep_writes: 31536000
    keep_tombstones: 7776000
    keep_incidents: 7776000
    spool: /var/lib/memops/spool
"""

RETURN = r"""
reads:
  description: Entries of reads that went; in check mode, that would go.
  type: int
  returned: success
writes:
  description: Entries of writes and deletions that went; in check mode, that would go.
  type: int
  returned: success
tombstones:
  description: Tombstones that went; in check mode, that would go.
  type: int
  returned: success
reason:
  description:
    - Why none could go, of entries or of tombstones, or that this host's clock is ahead of others, which count instead.
    - Empty where nothing stood in the way.
  type: str
  returned: success
incidents:
  description: The incidents of which rows, files and the names of records went; in check mode, would go.
  type: list
  elements: str
  returned: success
set_aside:
  description: Rows that had been set aside and went; in check mode, that would go.
  type: int
  returned: success
incidents_kept:
  description: Of each incident that is older and stays all the same, why.
  type: dict
  returned: success
spooled:
  description: The forensic snapshots that went from the spool; in check mode, that would go.
  type: list
  elements: str
  returned: success
spooled_kept:
  description: Of each forensic snapshot in the spool that is older and stays all the same, why.
  type: dict
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.store_retention import main

if __name__ == "__main__":
    main()
