# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What an error of a Valkey server, or of the connection to it, means to the person who runs the store.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import re
import typing as t

from .._errors import MemoryOpsError, StoreDamaged, StoreUnavailable
from .valkey_cluster import clustered, elsewhere, moved

if t.TYPE_CHECKING:
    from .valkey_connect import Place

RESTORE = "restore it from a snapshot: ansible-playbook memops.agent_memory.restore"
IDENTITY = (
    "restore its snapshots under another prefix: ansible-playbook memops.agent_memory.disaster_recovery "
    "-e '{\"memory_dr_store\": {\"prefix\": \"<another>\"}}'"
)
#: What an application's user needs beside its key patterns, and what an operator's needs more.
RIGHTS = "+@read +@write +@transaction +@connection +eval -@dangerous"
OPERATORS_RIGHTS = "+acl +info +config|get +cluster|slots +client|list +client|unblock"


class RightMissing(StoreUnavailable):
    """The server's user may not run a command. ``command`` is empty when a key is meant."""

    def __init__(self, message: str, next_step: str, command: str) -> None:
        super().__init__(message, next_step)
        self.command = command


@contextlib.contextmanager
def valkey_errors(place: Place) -> t.Iterator[None]:
    from redis.exceptions import RedisError

    try:
        yield
    except RedisError as exc:
        raise translate(exc, place) from None  # its own text may quote what was sent


def read_only(place: Place) -> StoreUnavailable:
    return StoreUnavailable(
        f"The server {place.where} is a read-only replica.",
        "try again: another server is becoming the primary" if place.sentinels
        else "set memory_store.url to the primary",
    )  # fmt: skip


def translate(exc: Exception, place: Place) -> MemoryOpsError:
    """What an error of the server or of the connection means to the person who runs the store."""
    from redis import exceptions as e

    if place.nodes.clustered and (elsewhere(exc) or isinstance(exc, e.ClusterDownError)):
        return moved(exc, place)
    code, text = str(getattr(exc, "status_code", "") or ""), str(exc)
    whole = f"{code} {text}"
    where, who = place.where, f"user {place.user or 'default'}"
    if isinstance(exc, e.AuthenticationError) or "WRONGPASS" in whole or "NOAUTH" in whole:
        return StoreUnavailable(
            f"The server {where} refuses the login of {who}.",
            "correct memory_store.user and memory_store.password (or password_file)",
        )
    if isinstance(exc, e.NoPermissionError) or "NOPERM" in whole:
        command = re.search(r"run the '([a-z|]{1,40})' command", text)
        what = f"run {command[1]}" if command else "use a key of the store" if "key" in text else "do this"
        more = f" +{command[1]}" if command and command[1] in ("restore", "time") else ""
        return RightMissing(
            f"The server {where} does not allow {who} to {what}.",
            f"give it what a store needs: ~{place.prefix}:* {RIGHTS} (an operator also {OPERATORS_RIGHTS}{more})",
            command[1] if command else "",
        )
    if isinstance(exc, e.BusyLoadingError) or "LOADING" in whole:
        return StoreUnavailable(
            f"The server {where} is still loading its data.", "wait until it is done, then run the same command again"
        )
    if isinstance(exc, e.ReadOnlyError) or "READONLY" in whole:
        return read_only(place)
    if "MASTERDOWN" in whole:
        return StoreUnavailable(
            f"The server {where} is a replica that has lost its primary.", "set memory_store.url to the primary"
        )
    if isinstance(exc, e.OutOfMemoryError) or "OOM" in whole:
        return StoreUnavailable(
            f"The server {where} is full: it has used all of its maxmemory. Nothing was written.",
            "raise maxmemory or free memory, then run the same command again",
        )
    if "MISCONF" in whole:
        return StoreUnavailable(
            f"The server {where} takes no writes, because it cannot save to its disk.",
            "look at the server's log and its disk (df), then run the same command again",
        )
    if "NOREPLICAS" in whole:
        return StoreUnavailable(
            f"The server {where} takes no writes, because too few replicas follow it.",
            "bring its replicas back, then run the same command again",
        )
    if "WRONGTYPE" in whole:
        return StoreDamaged(f"The store at {where} has a key of a wrong type; another program wrote there.", RESTORE)
    if isinstance(exc, (e.MovedError, e.AskError, e.ClusterError)) or re.search(r"\b(MOVED|CROSSSLOT)\b", whole):
        return clustered(place)
    if isinstance(exc, e.TimeoutError):
        return StoreUnavailable(
            f"The server {where} did not answer in time.",
            f"check it{' and whether it speaks TLS' if place.tls else ''}: {place.look}",
        )
    if isinstance(exc, e.ConnectionError):
        if "no Sentinel names" in text:
            return StoreUnavailable(
                f"No Sentinel of {place.service} answers and names a primary that is up.",
                f"check memory_store.sentinels and sentinel_service: {place.look}",
            )
        if place.tls and re.search(r"certificate|ssl|tls", text, re.I):
            _before, failed, reason = text.partition("certificate verify failed: ")
            why = "the handshake failed"
            if "ostname mismatch" in text or "match" in text:
                why = "its certificate is for another name"
            elif failed:
                why = "its certificate is not trusted: " + re.sub(r"\s*\(_?ssl.*", "", reason)
            elif re.search(r"certificate required|unknown ca", text):
                why = "it wants a client certificate that it trusts"
            elif "EOF occurred" in text:
                why = "it hung up, as one does that wants a client certificate it trusts"
            return StoreUnavailable(
                f"No TLS connection to the server {where}: {why}.",
                "correct memory_store.url, tls_ca, tls_cert or tls_key",
            )
        return StoreUnavailable(
            f"The server {where} cannot be reached{_why(text)}.",
            f"check memory_store.url and that the server runs (and whether it wants "
            f"{'a client certificate' if place.tls else 'TLS'}): {place.look}",
        )
    if "unknown command" in text.lower():
        return StoreUnavailable(
            f"The server {where} does not know a command that the store needs.", "use Valkey, or Redis from 7.0"
        )
    return StoreUnavailable(f"The server {where} refused a command ({code or 'ERR'}).", "look at the server's log")


def _why(text: str) -> str:
    for sign, words in (
        ("refused", "the connection was refused"), ("reset", "the connection was reset"),
        ("closed", "it closed the connection"), ("Name or service", "its name is not known"),
        ("No route", "there is no route to it"), ("imeout", "it does not answer"),
        ("no primary", text), ("max number of clients", "it has too many clients"),
        ("certificate", "its certificate is not accepted"),
    ):  # fmt: skip
        if sign in text:
            return f": {words}"
    return ""
