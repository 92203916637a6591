#!/usr/bin/python
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: route
short_description: Lead applications to the store that serves a namespace
version_added: 1.0.0
description:
  - Looks where the route leads, moves it, and checks that it leads there. It is moved wholly or not at all.
  - O(route.kind=file) rewrites the route file that applications follow, atomically.
  - O(route.kind=haproxy) puts one server of a backend into service through HAProxy's runtime API, takes the others out
    of it and shuts their sessions down; or changes an entry of a map. Several instances are moved all or put back.
    What is set so is gone when HAProxy is reloaded without a server state file; a changed map is gone in any case.
  - O(route.kind=route53) writes one record in Amazon Route 53 and waits until all its servers have it.
  - O(route.kind=tasks) and O(route.kind=none) move nothing; the namespace's incident remembers where the route leads.
author:
  - The memops.agent_memory maintainers (@memops)
options:
  namespace:
    description: The namespace. Needed unless the whole store moves (O(former)).
    type: str
  route:
    description: How applications find the store, as the variable C(memory_route) says.
    type: dict
    required: true
    suboptions:
      kind:
        description: What leads them there.
        type: str
        default: file
        choices: [file, haproxy, route53, tasks, none]
      path:
        description: The route file (O(route.kind=file)).
        type: path
      default:
        description: >-
          Store parameters for every namespace without an entry of its own in the route file. Needed when the file does
          not exist.
        type: dict
      sockets:
        description: >-
          The stats sockets of HAProxy, at C(level admin), each a path or V(host:port) (O(route.kind=haproxy)). All
          instances that serve the same applications belong here.
        type: list
        elements: str
      backend:
        description: >-
          The backend of HAProxy with one server for each memory host. With C({namespace}) in it each namespace has a
          backend of its own and is moved alone; otherwise the whole store is moved.
        type: str
      map:
        description: >-
          Instead of O(route.backend), the file of a loaded map whose entry names the backend. Moving it shuts all
          sessions of the former backend down; those of other namespaces connect again.
        type: path
      key:
        description: The map's entry for the namespace. Default is V({namespace}), which has to be in it.
        type: str
      servers:
        description: >-
          Which server of O(route.backend) stands for which memory host; with O(route.map), which backend. The roles
          take the hosts' own names by default.
        type: dict
      zone_id:
        description: The hosted zone (O(route.kind=route53)).
        type: str
      record:
        description: The record's name. It leads to the whole store.
        type: str
      type:
        description: The record's type.
        type: str
        default: CNAME
        choices: [CNAME, A, AAAA]
      values:
        description: The record's value for each memory host.
        type: dict
      ttl:
        description: >-
          Seconds that a resolver keeps the record, so that applications follow that much later. Above 60 the module
          warns.
        type: int
        default: 30
      timeout:
        description: >-
          Seconds to wait for an answer of HAProxy and for its server to be up (default 10), or until all servers of
          Route 53 have the record (default 120). With O(route.kind=tasks) the roles end each task that takes longer
          (default 300).
        type: float
      retries:
        description: How often a call to Route 53 is tried.
        type: int
        default: 5
      endpoint_url:
        description: The endpoint of Route 53, when it is not AWS's own.
        type: str
      region:
        description: The region to sign for.
        type: str
        default: us-east-1
      profile:
        description: >-
          A profile of the AWS configuration on the host. Without it the AWS SDK's own chain applies (environment,
          instance role).
        type: str
      tasks:
        description: The task file that moves the route (O(route.kind=tasks)). The roles include it.
        type: str
      check:
        description: The task file that checks it. The roles include it.
        type: str
  home:
    description: The memory host at which the namespace is at home.
    type: str
  to:
    description: The memory host to lead to. Default is O(home). Not needed with O(route.kind=file).
    type: str
  target:
    description: >-
      Store parameters (C(engine), C(layout), C(path) or C(url)) that serve the namespace (O(route.kind=file)). Without
      it the namespace follows the default of the route file again.
    type: dict
  former:
    description: >-
      The whole store moves: store parameters of where it was. All that a route file led there follows its default,
      which leads to O(target). Another kind of route needs no namespace then, when it leads to the whole store.
    type: dict
  along:
    description: >-
      Namespaces that must stay where they are. When there is one, a route that leads to the whole store is refused.
    type: list
    elements: str
    default: []
  begin:
    description: Only note that the move begins (O(route.kind=tasks)).
    type: bool
    default: false
extends_documentation_fragment:
  - memops.agent_memory.memory
  - memops.agent_memory.memory.attributes
  - memops.agent_memory.memory.actiongroup_memory
"""

EXAMPLES = r"""
- name: Send the namespace to the secondary
  memops.agent_memory.route:
    route:
      kind: file
      path: /etc/memops/route.json
    namespace: agent-7
    target:
      engine: sqlite
      layout: native
      path: /var/lib/agents/secondary.db

- name: Put the secondary's server into service in two instances of HAProxy
  memops.agent_memory.route:
    route:
      kind: haproxy
      sockets: [/run/haproxy/admin.sock, 127.0.0.1:9999]
      backend: memory
      servers:
        memory-1: valkey-1
        memory-2: valkey-2
    namespace: agent-7
    to: memory-2

- name: Lead the record in Route 53 to the secondary
  memops.agent_memory.route:
    route:
      kind: route53
      zone_id: Z0123456789ABCDEFGHIJ
      record: memory.example.com
      values:
        memory-1: memory-1.example.com
        memory-2: memory-2.example.com
      profile: operations
    namespace: agent-7
    to: memory-2
"""

RETURN = r"""
route:
  description: What was moved, in words.
  type: str
  returned: success
  sample: HAProxy's backend memory
before:
  description: >-
    Where it led. Store parameters of a route file (C(own): they stand in an entry of the namespace's own); for
    each socket of HAProxy the memory host; memory host, value and TTL of a record.
  type: dict
  returned: success
after:
  description: Where it leads now, in the same form.
  type: dict
  returned: success
away:
  description: Whether it led to another store before.
  type: bool
  returned: success
"""

from ansible_collections.memops.agent_memory.plugins.module_utils._modules.route import main

if __name__ == "__main__":
    main()
