# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Between Ansible and the operations: argument specs, stores from parameters, errors and results out.

PRIVATE to the collection. The one file of module_utils that knows Ansible.
"""

from __future__ import annotations

import gc
import getpass
import os
import socket
import typing as t

from ansible.module_utils.basic import AnsibleModule

from . import _progress
from ._codec import check_namespace
from ._errors import CannotProceed, InvalidInput, MemoryOpsError, RepositoryMissing
from ._inputs import moment
from ._layouts import seals
from ._operations.incident import Run
from ._operations.plan_unlogged import Window
from ._operations.workers import COLLECT_AFTER
from ._store import ENGINES, Store, open_store

LAYOUTS = (
    "native", "keyspace", "langgraph_store", "langgraph_checkpoint", "mem0", "mem0_history", "openai_agents",
    "google_adk", "agno", "mcp_memory", "python", "custom",
)  # fmt: skip
STORE: dict[str, t.Any] = {
    "engine": {"type": "str", "default": "sqlite", "choices": list(ENGINES)},
    "layout": {"type": "str", "default": "native", "choices": list(LAYOUTS)},
    "path": {"type": "path"},
    "url": {"type": "str"},
    "user": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "password_file": {"type": "path", "no_log": False},
    "tls_ca": {"type": "path"},
    "tls_cert": {"type": "path"},
    "tls_key": {"type": "path", "no_log": False},
    "sentinels": {"type": "list", "elements": "str"},
    "sentinel_service": {"type": "str"},
    "sentinel_user": {"type": "str"},
    "sentinel_password_file": {"type": "path", "no_log": False},
    "application_user": {"type": "str"},
    "application_password_file": {"type": "path", "no_log": False},
    "application_key": {"type": "str", "no_log": True},
    "application_key_file": {"type": "path", "no_log": False},
    "schema": {"type": "str", "default": "memops"},
    "prefix": {"type": "str", "default": "memops"},
    "pattern": {"type": "str"},
    "table_schema": {"type": "str", "default": "public"},
    "tables": {"type": "raw"},
    "factory": {"type": "str"},
    "arguments": {"type": "dict"},
    "operator_arguments": {"type": "dict"},
    "python_path": {"type": "list", "elements": "path"},
    "namespaces": {"type": "list", "elements": "str"},
    "call_timeout": {"type": "float"},
    "name": {"type": "str", "default": "memory"},
    "busy_timeout": {"type": "float", "default": 10.0},
    "server": {
        "type": "dict",
        "options": {
            "data_directory": {"type": "path"},
            "binaries": {"type": "path"},
            "service": {"type": "str"},
            "replication_user": {"type": "str"},
            "replication_password_file": {"type": "path", "no_log": False},
        },
    },
}
REPOSITORY: dict[str, t.Any] = {
    "url": {"type": "str", "required": True},
    "endpoint_url": {"type": "str"},
    "region": {"type": "str", "default": "us-east-1"},
    "ca_bundle": {"type": "path"},
    "profile": {"type": "str"},
    "access_key": {"type": "str", "no_log": True},
    "secret_key": {"type": "str", "no_log": True},
    "session_token": {"type": "str", "no_log": True},
    "addressing_style": {"type": "str", "default": "auto", "choices": ["auto", "path", "virtual"]},
    "connect_timeout": {"type": "float", "default": 5.0},
    "read_timeout": {"type": "float", "default": 60.0},
    "retries": {"type": "int", "default": 3},
    "object_lock": {"type": "str", "default": "none", "choices": ["none", "governance", "compliance"]},
    "object_lock_days": {"type": "float", "default": 14.0},
}
KEYRING: dict[str, t.Any] = {
    "source": {"type": "str", "default": "file", "choices": ["file", "env", "value", "aws_kms", "vault"]},
    "path": {"type": "path", "required": True},
    "master_key_file": {"type": "path"},
    "master_key": {"type": "str", "no_log": True},
    "master_key_env": {"type": "str", "default": "MEMOPS_MASTER_KEY", "no_log": False},
    "kms_key_id": {"type": "str", "no_log": False},
    "region": {"type": "str"},
    "endpoint_url": {"type": "str"},
    "profile": {"type": "str"},
    "vault_url": {"type": "str"},
    "vault_mount": {"type": "str", "default": "transit"},
    "vault_key": {"type": "str", "no_log": False},
    "vault_token_file": {"type": "path", "no_log": False},
    "vault_token_env": {"type": "str", "default": "VAULT_TOKEN", "no_log": False},
}
#: A master key by itself: one that has no keyring file yet.
MASTER = {name: option for name, option in KEYRING.items() if name != "path"}
#: Which records of a namespace, for the modules that can work on some of them.
RECORDS: dict[str, t.Any] = {
    "keys": {"type": "list", "elements": "str", "no_log": False},
    "pattern": {"type": "str"},
    "since": {"type": "str"},
    "until": {"type": "str"},
}
#: Where the damage is, for layouts without an access log.
WINDOW: dict[str, t.Any] = {
    **RECORDS,
    "restore_expiry": {"type": "str", "choices": ["keep", "rebase"], "default": "keep"},
}
#: Who tells the hit rate of an application that keeps no access log here.
HIT_RATE_SOURCE: dict[str, t.Any] = {
    "type": "dict",
    "no_log": False,
    "options": {
        "kind": {"type": "str", "required": True, "choices": ["prometheus", "spans"]},
        "url": {"type": "str"},
        "query": {"type": "str"},
        "token": {"type": "str", "no_log": True},
        "token_file": {"type": "path", "no_log": False},
        "user": {"type": "str"},
        "password": {"type": "str", "no_log": True},
        "password_file": {"type": "path", "no_log": False},
        "ca_bundle": {"type": "path"},
        "timeout": {"type": "float", "default": 10.0},
        "max_age": {"type": "float", "default": 120.0},
        "settle": {"type": "float"},
        "spans": {"type": "list", "elements": "str"},
    },
}
#: Who answers a benchmark where the values are an application's own.
SEARCH: dict[str, t.Any] = {
    "type": "dict",
    "no_log": False,
    "options": {
        "factory": {"type": "str", "required": True},
        "arguments": {"type": "dict"},
        "interpreter": {"type": "path"},
        "python_path": {"type": "list", "elements": "path"},
        "top": {"type": "int", "default": 10},
        "timeout": {"type": "float", "default": 60.0},
    },
}
RUN: dict[str, t.Any] = {
    "module": {"type": "str"},
    "incident": {"type": "str"},
    "attempt": {"type": "str"},
    "owner": {"type": "str"},
    "takeover": {"type": "str"},
    "work_dir": {"type": "path"},
    "progress_file": {"type": "path"},
}


def mapping(options: dict[str, t.Any]) -> dict[str, t.Any]:
    # Nothing in the mappings themselves is a secret; what is one says so.
    return {"type": "dict", "options": options, "no_log": False}


#: For modules that work on two servers: the store of the other one.
OTHER: dict[str, t.Any] = {**mapping(STORE), "required": True}


def given(mapping: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """A mapping of options without those that were left out."""
    return {name: value for name, value in mapping.items() if value is not None}


def window(params: t.Mapping[str, t.Any]) -> Window:
    """What a module was told of the damage. Errors: InvalidInput."""
    onset = params.get("onset") or params.get("since")
    if params.get("until") and not onset:
        raise InvalidInput("The window of the damage needs its beginning.", "set memory_since too")
    return Window(
        onset=moment(onset) if onset and not onset.isdigit() else None,
        until=moment(params["until"]) if params.get("until") else None,
        keys=frozenset(params.get("keys") or ()),
        pattern=params.get("pattern") or None,
        rebase=params.get("restore_expiry") == "rebase",
    )


class Context:
    """What one module call works with. Store, repository and keyring are opened when they are first asked for."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, t.Any] = module.params
        self.check = bool(module.check_mode)
        self._store: Store | None = None

    def require(self, *, store: bool, repository: bool, keyring: bool) -> None:
        """Errors: InvalidInput when a mapping that the module cannot do without is not set."""
        if store and not self.params.get("store"):
            raise InvalidInput("No memory store is set.", "set memory_store (path, or engine and url)")
        if repository:
            self.repository_params()
        if keyring and not self.has_keyring:
            raise InvalidInput("No keyring is set.", "set memory_keyring (source, path, …)")

    @property
    def store_params(self) -> dict[str, t.Any]:
        return given(self.params["store"])

    @property
    def name(self) -> str:
        """The memory cluster's name: under it its snapshots lie in the repository."""
        return str(self.params["store"]["name"])

    @property
    def namespace(self) -> str:
        return check_namespace(self.params["namespace"])

    @property
    def store(self) -> Store:
        if self._store is None:
            self._store = open_store(self.store_params)
        return self._store

    @property
    def run(self) -> Run:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
        return Run(
            attempt=self.params.get("attempt") or f"{socket.gethostname()}:{os.getpid()}:module",
            owner=self.params.get("owner") or f"{user}@{socket.gethostname()}",
            incident=self.params.get("incident") or None,
            takeover=self.params.get("takeover") or None,
            work_dir=self.params.get("work_dir") or None,
        )

    def new_master(self) -> dict[str, t.Any] | None:
        """The master key to move to, where the module has such an option and it is set."""
        given = self.params.get("new_master")
        return dict(given) if given else None

    @property
    def has_repository(self) -> bool:
        return bool(self.params.get("repository"))

    @property
    def has_keyring(self) -> bool:
        return bool(self.params.get("keyring"))

    def repository(self, create: bool = False) -> t.Any:
        """Errors: InvalidInput when none is set, and those of Repository.open."""
        from ._repository import Repository

        if not self.has_repository:
            raise InvalidInput("No snapshot repository is set.", "set memory_repository (url: s3://… or file:///…)")
        return Repository.open(dict(self.params["repository"]), create=create and not self.check)

    def keyring(self) -> t.Any:
        """Errors: InvalidInput when none is set, KeyUnavailable."""
        from ._keyring import Keyring

        if not self.has_keyring:
            raise InvalidInput("No keyring is set.", "set memory_keyring (source, path, …)")
        params = dict(self.params["keyring"])
        kind = (self.params.get("store") or {}).get("layout") or "native"
        if not seals(kind):
            params["path"] = None  # no record was ever sealed: the master key alone seals and opens the snapshots
        return Keyring.open(params)

    def repository_params(self) -> dict[str, t.Any]:
        """For operations that open (and make) the repository themselves, after they forked their workers."""
        if not self.has_repository:
            raise InvalidInput("No snapshot repository is set.", "set memory_repository (url: s3://… or file:///…)")
        return dict(self.params["repository"])

    def made_repository(self) -> t.Any:
        """None in check mode where none is made yet: the backup that makes it was only rehearsed.
        Errors: as of ``repository``."""
        try:
            return self.repository()
        except RepositoryMissing:
            if not self.check:
                raise
            return None

    def repository_or_none(self) -> tuple[t.Any, list[str]]:
        """The repository, or None and why not: for steps that go on without it."""
        try:
            return self.repository(), []
        except MemoryOpsError as exc:
            return None, [str(exc)]

    def judged(self, found: dict[str, t.Any], consequence: str) -> dict[str, t.Any]:
        """A verdict as a module result: in real runs anything but a pass fails the task."""
        if found["verdict"] != "pass" and not self.check:
            for warning in found.pop("warnings", []):
                self.module.warn(warning)
            reasons = "; ".join(map(str, found.get("reasons") or found.get("breaches") or [])) or "no reason was given"
            self.module.fail_json(
                msg=f"The verdict is {found['verdict']}: {reasons[:600].rstrip('.')}. Next: {consequence}",
                error="verdict",
                **_printable({**self.standing(), **found}),
            )
        return found

    def standing(self) -> dict[str, str]:
        """For a step that failed: in what state the namespace is, where the store is open and tells; else {}."""
        name = self.params.get("namespace")
        if self._store is None or not name:
            return {}
        try:
            with self._store.reader() as reader:
                return {"standing": reader.namespace(name).state}
        except MemoryOpsError:
            return {}

    def close(self) -> None:
        if self._store is not None:
            self._store.close()


def execute(
    operation: t.Callable[[Context], dict[str, t.Any]],
    options: dict[str, t.Any],
    *,
    store: bool = True,
    repository: bool = False,
    keyring: bool = False,
    check: bool = True,
    **rules: t.Any,
) -> None:
    """Run one module: parse, call ``operation``, hand out its result or its error. Never returns.

    ``store``/``repository``/``keyring`` True means the module cannot do without; every module of the action group
    accepts all three anyway, so that one module_defaults block serves them all.
    """
    gc.set_threshold(COLLECT_AFTER)
    spec = {
        "store": mapping(STORE),
        "repository": mapping(REPOSITORY),
        "keyring": mapping(KEYRING),
        **RUN,
        **options,
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=check, **rules)
    context = Context(module)
    if not module.check_mode:
        _progress.start(module.params["progress_file"])
    try:
        context.require(store=store, repository=repository, keyring=keyring)
        result = operation(context)
    except MemoryOpsError as exc:
        holder = {"holder": exc.holder} if hasattr(exc, "holder") else {}
        more = {**holder, **(context.standing() if exc.code == CannotProceed.code else {})}
        module.fail_json(msg=str(exc), error=exc.code, reason=exc.message, next_step=exc.next_step, **more)
    except MemoryError:
        module.fail_json(
            msg="The memory host has no memory left for this step. Next: free memory, then run it again.",
            error="out-of-memory",
        )
    except OSError as exc:
        module.fail_json(
            msg=f"The memory host refused a file operation: {exc.strerror or exc} ({exc.filename or 'no file'}). "
            "Next: mend that, then run the same command again.",
            error="host-refused",
        )
    finally:
        _progress.finish()
        context.close()
    result.setdefault("changed", False)
    warnings = result.pop("warnings", [])
    for warning in warnings:
        module.warn(warning)
    module.exit_json(**_printable(result), **({"warned": warnings} if warnings else {}))


def _printable(value: t.Any) -> t.Any:
    """Bytes as hex and NUL-free text: what leaves a module is JSON that any reader takes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, dict):
        return {str(key): _printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_printable(item) for item in value]
    return value


def diff(before: dict[str, t.Any], after: dict[str, t.Any], header: str) -> dict[str, t.Any]:
    """A diff as Ansible prints it."""
    return {"before": before, "after": after, "before_header": header, "after_header": header}
