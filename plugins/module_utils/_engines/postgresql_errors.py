# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL's errors in words: one sentence and the next step.

PRIVATE to the collection.
"""
from __future__ import annotations

import re
import typing as t

from .._errors import (
    CannotProceed,
    InvalidInput,
    MemoryOpsError,
    NamespaceQuarantined,
    OutOfOrder,
    StoreDamaged,
    StoreUnavailable,
)

#: Every refusal by the fence starts with this and has this SQLSTATE.
FENCE_MESSAGE: t.Final = "memops fence"
FENCE_STATE: t.Final = "MO001"
NO_RIGHT: t.Final = "42501"
IDENTITY: t.Final = (
    "restore its snapshots in another schema: ansible-playbook memops.agent_memory.disaster_recovery "
    "-e '{\"memory_dr_store\": {\"schema\": \"<another>\"}}'"
)
RESTORE: t.Final = "restore it from a snapshot: ansible-playbook memops.agent_memory.restore"
_NO_VALUE: t.Final = "23502"
_CHECK: t.Final = "23514"
#: What code of an application fails with: what it raises itself, names that it does not find, values, rights.
_OF_CODE: t.Final = ("P0", "42", "3F", "22")
_FUNCTION: t.Final = re.compile(r"(?:SQL|PL/\w+) function \"?([^\s(\"]+)")
PACKAGE: t.Final = "psycopg[binary]==3.3.9"

#: What the client library says when no session comes about, in the order of looking; it has no SQLSTATE for us.
_CONNECTING: t.Final = (
    ("password authentication failed", "the password is wrong", "correct memory_store.password or password_file"),
    ("no password supplied", "the server asks for a password", "set memory_store.password or password_file"),
    ("session is read-only", "none of its servers takes writes", "see which is the primary, or promote one"),
    ("certificate verify failed", "its TLS certificate is not trusted", "correct memory_store.tls_ca"),
    ("does not match host name", "its TLS certificate is for another host name", "use the name in the certificate"),
    ("root certificate file", "the TLS authority's file cannot be used", "correct memory_store.tls_ca"),
    ("private key file", "the TLS key cannot be used", "correct memory_store.tls_key (mode 0600)"),
    ("certificate file", "the TLS certificate cannot be used", "correct memory_store.tls_cert"),
    ("does not support ssl", "the server has no TLS", "switch TLS on there (ssl = on)"),
    ("no encryption", "the server does not let this user in from here without TLS",
     "set memory_store.tls_ca, or add a line to its pg_hba.conf"),
    ("no pg_hba.conf entry", "the server does not let this user in from here", "add a line to its pg_hba.conf"),
    ("authentication failed", "the server does not let this user in", "correct memory_store.user and password"),
    ("too many", "it has no free connection", "try again, or raise max_connections there"),
    ("remaining connection slots", "it has no free connection", "try again, or raise max_connections there"),
    ("server closed the connection", "the server closed the connection", "see that it runs, then try again"),
    ("starting up", "it is still starting", "try again in a moment"),
    ("shutting down", "it is shutting down", "start it again"),
    ("could not translate host name", "its host name is not known", "correct the host in memory_store.url"),
    ("failed to resolve host", "its host name is not known", "correct the host in memory_store.url"),
    ("timeout expired", "it did not answer in time", "check host, port and firewall"),
    ("connection refused", "nothing listens there", "start the server, or correct memory_store.url"),
    ("no such file", "nothing listens there", "start the server, or correct memory_store.url"),
)


def refused_connection(exc: Exception, where: str) -> MemoryOpsError:
    """What a connection that did not come about means."""
    text = " ".join(str(exc).split())
    low = text.lower()
    if "database" in low and "does not exist" in low:
        return StoreUnavailable(
            f"The PostgreSQL server of {where} has no such database.", "correct memory_store.url, or create it"
        )
    if "role" in low and ("does not exist" in low or "is not permitted to log in" in low):
        return StoreUnavailable(f"The PostgreSQL server of {where} has no such user.", "correct memory_store.user")
    for needle, reason, step in _CONNECTING:
        if needle in low:
            return StoreUnavailable(f"The PostgreSQL store {where} cannot be reached: {reason}.", step)
    return StoreUnavailable(
        f"The PostgreSQL store {where} cannot be reached: {text[:300].rstrip('.')}.", "check that the server runs"
    )


def read_only(where: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"The store {where} is a read-only standby and takes no writes.",
        "name the primary in memory_store.url (or add target_session_attrs=read-write), or promote this one",
    )


def translate(exc: Exception, where: str, lost: bool = False, standby: bool = True) -> MemoryOpsError:
    """What a failed statement means to the person who runs the store. ``lost``: the session is gone. ``standby``: the
    server follows another one."""
    state = str(getattr(exc, "sqlstate", None) or "")
    diag = getattr(exc, "diag", None)
    text = str(getattr(diag, "message_primary", None) or "") or " ".join(str(exc).split())[:300]
    text = text.rstrip(".")
    if state == FENCE_STATE or (state == NO_RIGHT and "row-level security" in text):
        return NamespaceQuarantined(
            f"The store {where} refused a write ({text}): the namespace is quarantined, or this generation is not the "
            "active one.",
            "wait for the release, or run the release playbook",
        )
    if state == "25006" and not standby:
        return StoreUnavailable(
            f"The store {where} takes no writes: its server, database or role was made read-only.",
            "find out why: after a failover another server is the primary; after a full disk or maintenance set "
            "default_transaction_read_only to off there",
        )
    if state == "25006" or (state == "0A000" and "recovery" in text):
        return read_only(where)
    if lost or state in ("57P01", "57P02", "57P03", "57P05", "25P03") or state.startswith("08"):
        if "server closed the connection" in text:  # the client library's guesses follow, over several lines
            text = "the server closed it"
        return StoreUnavailable(
            f"The connection to the store {where} was lost: {text or 'the server closed it'}. A write that was under "
            "way may or may not be stored.",
            "run the same command again when the server is back",
        )
    if state in ("55P03", "40P01", "40001", "55006"):
        return StoreUnavailable(
            f"The store {where} is busy: another session held what this one needs for longer than the busy timeout "
            f"({text}).",
            "try again, or find the session that holds it: SELECT * FROM pg_stat_activity WHERE state <> 'idle'",
        )
    if state == "57014":
        return StoreUnavailable(
            f"A statement on the store {where} was cancelled by the server: {text}.",
            "try again; look for an administrator or a statement_timeout that cancels long statements",
        )
    if state == "53100" or re.search("no space left|file too large|quota exceeded", text, re.I):
        return StoreUnavailable(f"The store {where} cannot grow: {text}.", "free space on its disk, then try again")
    if state.startswith("XX") or "invalid page" in text or "could not read block" in text:
        return StoreDamaged(f"The store {where} is damaged: {text}.", RESTORE)
    if state[:2] in _OF_CODE or state in (_NO_VALUE, _CHECK):
        code = _FUNCTION.search(str(getattr(diag, "context", None) or ""))
        if code is not None and not code[1].rpartition(".")[2].startswith("memops_"):
            return CannotProceed(
                f"A function of the application, {code[1]}, refuses this in the store {where}: {text}.",
                "have the owner of the tables switch off the trigger that calls it (ALTER TABLE … DISABLE TRIGGER …), "
                "or mend it: it runs with the search_path that ALTER FUNCTION … SET search_path gives it; then run the "
                "same command again",
            )
    if state in ("42P01", "42703", "42883", "3F000", "42704"):
        return StoreDamaged(f"The store {where} has lost a part of its structure: {text}.", RESTORE)
    if state == NO_RIGHT and text.startswith("permission denied for database"):
        return StoreUnavailable(
            f"This user may not make the schema memory_store.schema in the store {where} ({text}).",
            f"GRANT CREATE ON DATABASE {text.rpartition(' ')[2]} TO the operator's user, as a superuser or owner of "
            "the database; an application needs no such right once an operator made the store",
        )
    if state == NO_RIGHT:
        return StoreUnavailable(
            f"This user may not do that in the store {where} ({text}).",
            "connect as the owner of the schema, or name this user as memory_store.application_user when the owner "
            "opens the store",
        )
    if state.startswith("58"):
        return StoreUnavailable(f"The disk under the store {where} fails: {text}.", "check the server's disk and log")
    if state[:2] in ("53", "54"):
        if state.startswith("54"):
            return InvalidInput(f"The store {where} does not take this record: {text}.", "split the record")
        return StoreUnavailable(f"The store {where} has no resources left: {text}.", "look at the server, try again")
    if state == "23503":
        return OutOfOrder(
            f"The store {where} does not take this record: {text}. Nothing was changed.",
            "bring back the row of the other table that it refers to (the application's own backup has it), then run "
            "the same command again",
        )
    if state in ("23505", "23P01"):
        return OutOfOrder(
            f"The store {where} does not take this record: {text}. Nothing was changed.",
            "another row has what only one may have: look which of the two is right, change or remove the other, then "
            "run the same command again",
        )
    if state == _CHECK and text.startswith("no partition"):
        return InvalidInput(
            f"The store {where} does not take this record: {text}.",
            "have the application make the partition that it belongs to, then run the same command again",
        )
    if state in (_NO_VALUE, _CHECK):
        return InvalidInput(
            f"The store {where} does not take this record: {text}.",
            "have the owner of the table take that rule back, which its records do not meet, then run the same command "
            "again",
        )
    if state[:2] in ("22", "23", "21") or exc.__class__.__name__ in ("DataError", "NumericValueOutOfRange"):
        return InvalidInput(f"The store {where} does not take this record: {text}.", "correct or split the record")
    return StoreUnavailable(f"The store {where} does not work: {text}.", "look at the log of the PostgreSQL server")
