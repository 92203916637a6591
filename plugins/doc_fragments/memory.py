# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

#: Which store: the options of ``store``, and of ``primary`` where a module works on two.
STORE = r"""    suboptions:
      engine:
        description: What runs the store.
        type: str
        default: sqlite
        choices: [sqlite, postgresql, valkey, jsonl, python]
      layout:
        description: >-
          How memories lie in the engine. V(native) is the collection's own layout; V(keyspace) is any other
          application's keys in Valkey or Redis, which O(store.pattern) names; V(custom) is any other application's
          tables, which O(store.tables) describes; V(mcp_memory) is the JSON Lines file of the MCP memory server;
          V(python) is an application's own memory object, which O(store.factory) names; the others are the tables of
          the agent frameworks of these names. docs/layouts.md, docs/tables_sqlite.md and docs/mcp_memory.md say which
          engine runs which.
        type: str
        default: native
        choices:
          [native, keyspace, langgraph_store, langgraph_checkpoint, mem0, mem0_history, openai_agents, google_adk, agno,
           mcp_memory, python, custom]
      path:
        description: >-
          The store's file (O(store.engine=sqlite) and O(store.engine=jsonl), which need it). With
          O(store.engine=jsonl) it may have one V({namespace}) in it, for a file per namespace. With
          O(store.engine=python), which needs it too, the file in which the collection keeps what is its own; it is
          made with the first thing that is changed.
        type: path
      url:
        description: >-
          Where the server is (the other engines need it), such as
          V(postgresql://host:5432/database?sslmode=verify-full), V(valkey://host:6379/0), V(redis://host:6379/0), or
          V(valkeys://host:6379/0) for TLS. Of a Valkey Cluster it may name several nodes,
          V(valkey://host-a:6379,host-b:6379). A password in it is refused.
        type: str
      user:
        description: Who the operator is on the server. It owns the store, and is another user than the applications.
        type: str
      password:
        description: The password of O(store.user). It goes into no route and no report.
        type: str
      password_file:
        description: File on the memory host with the password of O(store.user), in place of O(store.password).
        type: path
      tls_ca:
        description: Certificates to trust for the server.
        type: path
      tls_cert:
        description: A client certificate.
        type: path
      tls_key:
        description: The client certificate's key.
        type: path
      sentinels:
        description: >-
          The Sentinels (V(host:26379) each) that know which Valkey or Redis server is the primary. The store is where
          they say. O(store.url) then is optional. Where it is set, its scheme (TLS, of the Sentinels too) and database
          count, and it names the memory host's own server.
        type: list
        elements: str
      sentinel_service:
        description: What the Sentinels call primary and replicas, such as V(mymaster). Goes with O(store.sentinels).
        type: str
      sentinel_user:
        description: Who operator and applications are on the Sentinels.
        type: str
      sentinel_password_file:
        description: >-
          File with the password of O(store.sentinel_user), on the memory host and under the same path on the hosts of
          the applications.
        type: path
      application_user:
        description: >-
          Who applications are on the server. A fence is proven against this user, and a route sends applications to the
          store as this user.
        type: str
      application_password_file:
        description: >-
          File on the hosts of the applications with their password. It is named in the route. Where the memory host has
          it too, the proof of a fence logs in with it.
        type: path
      application_key:
        description: >-
          The key by which the application itself encrypts its memories, in place of O(store.application_key_file). It
          goes into no route and no report.
        type: str
      application_key_file:
        description: >-
          A file on the memory host with the key by which the application itself encrypts its memories: what
          C(LANGGRAPH_AES_KEY) is to LangGraph (O(store.layout=langgraph_checkpoint)), and C(encryption_key) to the
          OpenAI Agents SDK (O(store.layout=openai_agents)). One key a line, the present one first, then former ones
          that some values may still have; V(base64:…) for a key that is no text. What none of them opens is found and
          told; without it nobody verifies whether they open.
        type: path
      schema:
        description: The schema that holds the store (O(store.engine=postgresql)).
        type: str
        default: memops
      prefix:
        description: >-
          What every key of the store begins with (O(store.engine=valkey)); with O(store.layout=keyspace) every key of
          the collection's own. On a Valkey Cluster it needs a hash tag, such as V({memops}), which puts the store's
          keys into one slot; an application's keys (O(store.layout=keyspace)) may lie in all of them.
        type: str
        default: memops
      pattern:
        description: >-
          Which keys are an application's memories (O(store.layout=keyspace), which needs it), such as
          V(mem:{namespace}:*). It has one C({namespace}) and, behind it, one C(*) for the name of a record.
        type: str
      table_schema:
        description: >-
          The schema in which an application's own tables lie (O(store.engine=postgresql) with a layout of tables). The
          collection's own data stay in O(store.schema).
        type: str
        default: public
      tables:
        description: >-
          With O(store.layout=custom), which needs it, the list of the application's tables, as docs/layouts.md
          describes it. With another layout of tables a mapping of the framework's names of tables to those that they
          have here, such as V({store: agent_store}).
        type: raw
      factory:
        description: >-
          What makes the application's memory object (O(store.layout=python), which needs it), as
          V(package.module:factory), a function or class. It is imported on the memory host alone, by its interpreter
          (C(ansible_python_interpreter)), in a process of its own. docs/python_memory.md says which methods the object
          has.
        type: str
      arguments:
        description: >-
          What O(store.factory) is called with, as the application calls it. It is shown by verbose runs. Let the
          factory read secrets from a file or from its environment.
        type: dict
      operator_arguments:
        description: >-
          What O(store.factory) is called with besides, for the object that operators use. That one has to pass the
          fence that the object's own C(quarantine) raises; without it nothing is fenced.
        type: dict
      python_path:
        description: Folders from which O(store.factory) is imported, before those that the interpreter has.
        type: list
        elements: path
      namespaces:
        description: >-
          The namespaces that the memory object has (O(store.layout=python)), where it has no C(list_namespaces) that
          tells.
        type: list
        elements: str
      call_timeout:
        description: Seconds that one call of the memory object may take (O(store.layout=python)). Default is 30.
        type: float
      name:
        description: The memory cluster's name. Its snapshots lie under this name in the repository.
        type: str
        default: memory
      busy_timeout:
        description: Seconds to wait for another writer.
        type: float
        default: 10.0
      server:
        description: >-
          How the server of this store is made a replica again on its own host, and who replicas connect as
          (O(store.engine=postgresql)).
        type: dict
        suboptions:
          data_directory:
            description: >-
              Where the server's files lie on its host. Whoever runs the module there has to be root or their owner.
            type: path
          binaries:
            description: >-
              The folder of PostgreSQL's programs on that host. Default is the one from which the server was last
              started.
            type: path
          service:
            description: >-
              The systemd unit that runs the server, which root alone stops and starts. Without it C(pg_ctl) does.
            type: str
          replication_user:
            description: >-
              Who a replica connects as. It needs C(REPLICATION), and for C(pg_rewind) the functions that its
              documentation names. Default is O(store.user).
            type: str
          replication_password_file:
            description: File on the replica's host with that user's password.
            type: path
"""

#: Where a master key is: the options of ``keyring``, and of ``new_master`` where a module has two.
MASTER_KEY = r"""      source:
        description: Where the master key is.
        type: str
        default: file
        choices: [file, env, value, aws_kms, vault]
      master_key_file:
        description: File with the master key, 32 bytes in base64 or hex (O(keyring.source=file)).
        type: path
      master_key:
        description: >-
          The master key itself, in base64 or hex, for a controller that keeps it and hands it to its jobs
          (O(keyring.source=value)).
        type: str
      master_key_env:
        description: Environment variable with the master key (O(keyring.source=env)).
        type: str
        default: MEMOPS_MASTER_KEY
      kms_key_id:
        description: The key in AWS KMS (O(keyring.source=aws_kms)).
        type: str
      region:
        description: The region of AWS KMS.
        type: str
      endpoint_url:
        description: The endpoint of AWS KMS, when it is not the region's own.
        type: str
      profile:
        description: A profile of the AWS configuration on the memory host.
        type: str
      vault_url:
        description: The address of Vault (O(keyring.source=vault)).
        type: str
      vault_mount:
        description: Where Vault's transit engine is mounted.
        type: str
        default: transit
      vault_key:
        description: The transit key's name.
        type: str
      vault_token_file:
        description: File with the Vault token.
        type: path
      vault_token_env:
        description: Environment variable with the Vault token.
        type: str
        default: VAULT_TOKEN
"""


class ModuleDocFragment:
    # Annotated where text is composed: ansible-test's YAML check reads plain assignments, and of literals alone.
    DOCUMENTATION: str = r"""
requirements:
  - Python 3.9 or newer on the memory host
  - cryptography, msgpack, zstandard (memory host)
  - boto3 (memory host, for repositories on S3 and master keys in AWS KMS)
  - psycopg 3 (memory host, for stores in PostgreSQL)
  - redis (memory host, for stores in Valkey or Redis)
options:
  store:
    description: The memory store to work on.
    type: dict
""" + STORE + r"""  repository:
    description: Where snapshots live.
    type: dict
    suboptions:
      url:
        description: V(s3://bucket/prefix) or V(file:///path). A password in it is refused.
        type: str
        required: true
      endpoint_url:
        description: The S3 endpoint, when it is not AWS.
        type: str
      region:
        description: The S3 region.
        type: str
        default: us-east-1
      ca_bundle:
        description: Certificates to trust for the endpoint.
        type: path
      profile:
        description: A profile of the AWS configuration on the memory host.
        type: str
      access_key:
        description: >-
          The S3 access key. Without it the AWS SDK's own chain applies (environment, profile, instance role).
        type: str
      secret_key:
        description: The S3 secret key.
        type: str
      session_token:
        description: The S3 session token.
        type: str
      addressing_style:
        description: How the bucket is put into the address.
        type: str
        default: auto
        choices: [auto, path, virtual]
      connect_timeout:
        description: Seconds to wait for a connection.
        type: float
        default: 5.0
      read_timeout:
        description: Seconds to wait for an answer.
        type: float
        default: 60.0
      retries:
        description: How often a failed call is tried again.
        type: int
        default: 3
      object_lock:
        description: >-
          Lock what is written against deleting and overwriting, in this mode of S3. The bucket has to have object lock.
        type: str
        default: none
        choices: [none, governance, compliance]
      object_lock_days:
        description: For how many days. What retention keeps is locked again when half of them are over.
        type: float
        default: 14.0
  keyring:
    description: The record keys, each wrapped by a master key.
    type: dict
    suboptions:
      path:
        description: The keyring file with the wrapped record keys.
        type: path
        required: true
""" + MASTER_KEY + r"""  incident:
    description: The incident to work in. Default is the namespace's open one, else a new one.
    type: str
  module:
    description: Which module the shared code is to be. The collection's action plugin sets it; leave it out.
    type: str
  attempt:
    description: Which run this is. The collection's action plugin sets it; leave it out.
    type: str
  owner:
    description: Who runs it, as shown to a second operator. The collection's action plugin sets it.
    type: str
  takeover:
    description: A former attempt that is known to be dead. The collection's action plugin sets it.
    type: str
  work_dir:
    description: >-
      Folder on the memory host for the incident's plan and journal. Default is beside the store's file, or for a store
      on a server in C(/var/lib/memops) (root) or C(~/.local/state/memops).
    type: path
  progress_file:
    description: >-
      Where the module tells how far it is while it works, when it takes longer than a second. The collection's action
      plugin sets it, reads it, and shows it (C(memory_progress_seconds)).
    type: path
"""

    NEW_MASTER: str = r"""
options:
  new_master:
    description:
      - The master key to move to. Without it the one that O(keyring) names is the new one, as when the inventory was
        changed already.
      - A key service's key is known by its name alone, so move to one of another name.
    type: dict
    suboptions:
""" + MASTER_KEY.replace("O(keyring.", "O(new_master.")

    NAMESPACE = r"""
options:
  namespace:
    description: The namespace to work on.
    type: str
    required: true
"""

    ACTIONGROUP_MEMORY = r"""
attributes:
  action_group:
    description: >-
      Use C(group/memops.agent_memory.memory) in C(module_defaults) to set O(store), O(repository) and O(keyring) once.
    support: full
    membership:
      - memops.agent_memory.memory
"""

    ATTRIBUTES = r"""
attributes:
  check_mode:
    description: Can run in check_mode and say what would change without changing anything.
    support: full
  diff_mode:
    description: Returns what changed, or would change, in diff mode.
    support: full
  idempotent:
    description: A second run without a change in between changes nothing.
    support: full
"""

    INFO = r"""
attributes:
  check_mode:
    description: Can run in check_mode; it never changes anything.
    support: full
  diff_mode:
    description: Returns what changed, or would change, in diff mode.
    support: N/A
    details: Nothing is changed.
  idempotent:
    description: A second run without a change in between changes nothing.
    support: full
"""

    PRIMARY: str = r"""
options:
  primary:
    description: The store on the primary's server, in the words of O(store). It has to be reached from this host.
    type: dict
    required: true
""" + STORE.replace("O(store.", "O(primary.")
