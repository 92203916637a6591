#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rejoin
short_description: Make a former primary a replica of the server that took over
version_added: 1.0.0
description:
  - Fences the former primary, whose store is O(store), and compares its access log with that of O(primary). Writes that
    only it has are the ones that a forced failover lost. They are listed to the record, and its state is published as a
    forensic snapshot before they are thrown away.
  - Then its server follows the other one (C(pg_rewind), else a new copy, for PostgreSQL) and catches up. The host's own
    configuration stays.
  - It runs on the former primary's host, as root or as the owner of the server's files.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  accept_loss:
    description: >-
      Go on although what only the former primary has cannot be told, because its server does not run, or cannot be
      kept, because no snapshot can be published.
    type: bool
    default: false
  timeout:
    description: Seconds until the former primary has to follow and to have caught up.
    type: float
    default: 300.0
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.primary
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
seealso:
  - module: memops.agent_memory.failover_store
"""

EXAMPLES = r"""
- name: Let the former primary follow the one that took over
  memops.agent_memory.rejoin:
    store:
      engine: postgresql
      url: postgresql://db-1.example.com/memory
      user: memops
      password_file: /etc/memops/password
      server:
        data_directory: /var/lib/postgresql/17/main
        binaries: /usr/lib/postgresql/17/bin
        service: postgresql@17-main
        replication_user: replicator
        replication_password_file: /etc/memops/replicator.password
    primary:
      engine: postgresql
      url: postgresql://db-2.example.com/memory
      user: memops
      password_file: /etc/memops/password
    repository:
      url: s3://agent-memory/production
    keyring:
      path: /etc/memops/keyring.json
      master_key_file: /etc/memops/master.key
"""

RETURN = r"""
incident:
  description: The incident of the failover that this belongs to.
  type: str
  returned: success
detail:
  description: What was done, in words.
  type: str
  returned: success
lost:
  description: >-
    How many acknowledged writes only the former primary had. Nothing when that cannot be told (RV(untold)) or was not
    looked at.
  type: int
  returned: success
untold:
  description: >-
    Whether nobody can tell what only the former primary had. It took no part in the failover, and then somebody else,
    such as Sentinel, made it a replica, or its server does not run and O(accept_loss) is set, or the write log of one
    of both was pruned past where they parted: RV(lost_file) lists what may be lost, RV(forensic) holds its state.
  type: bool
  returned: success
lost_keys:
  description: "The first 1,000 of them, each as namespace: key."
  type: list
  elements: str
  returned: success
lost_file:
  description: The file on this host that lists all of them.
  type: str
  returned: success
forensic:
  description: The snapshot that holds the former primary's state.
  type: str
  returned: something was lost or may be
position:
  description: Where it is in the replication stream.
  type: int
  returned: something was done
notes:
  description: How it was brought back.
  type: list
  elements: str
  returned: something was done
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.rejoin import main

if __name__ == "__main__":
    main()
