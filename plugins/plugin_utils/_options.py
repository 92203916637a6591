# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection's variables may hold, so that a slip of the pen in one is met with one sentence.

PRIVATE to the collection. Ansible's own answer to a wrong option is a list of all, and to a wrong variable of a role
the role's whole specification. The names stand here once more, since the specifications of modules and roles take long
to load on a controller; a unit test compares them.
"""

from __future__ import annotations

import difflib
import math
import re
import typing as t

from ansible.module_utils.common.validation import (
    check_type_bool,
    check_type_dict,
    check_type_float,
    check_type_int,
    check_type_list,
)

#: The options of the variables that are mappings.
OPTIONS: t.Final[dict[str, tuple[str, ...]]] = {
    "memory_store": (
        "engine", "layout", "path", "url", "user", "password", "password_file", "tls_ca", "tls_cert", "tls_key",
        "sentinels", "sentinel_service", "sentinel_user", "sentinel_password_file", "application_user",
        "application_password_file", "application_key", "application_key_file", "schema", "prefix", "pattern",
        "table_schema", "tables", "factory", "arguments", "operator_arguments", "python_path", "namespaces",
        "call_timeout", "name", "busy_timeout", "server",
    ),
    "memory_repository": (
        "url", "endpoint_url", "region", "ca_bundle", "profile", "access_key", "secret_key", "session_token",
        "addressing_style", "connect_timeout", "read_timeout", "retries", "object_lock", "object_lock_days",
    ),
    "memory_keyring": (
        "path", "source", "master_key_file", "master_key", "master_key_env", "kms_key_id", "region", "endpoint_url",
        "profile", "vault_url", "vault_mount", "vault_key", "vault_token_file", "vault_token_env",
    ),
    "memory_slo": ("accuracy_gain", "hit_rate", "max_loss", "rpo", "rto"),
    "memory_keep": ("daily", "hourly", "monthly", "weekly", "yearly"),
    "memory_doctor": ("drill", "free", "key", "scrub", "skew"),
}  # fmt: skip
#: What other tools call an option, and how it is said here.
CALLED: t.Final[dict[str, dict[str, str]]] = {
    "memory_store": {
        "type": "engine", "kind": "engine", "backend": "engine", "file": "path", "database": "path, or url",
        "db": "path, or url", "dsn": "url", "uri": "url", "host": "url", "address": "url", "username": "user",
        "login": "user", "timeout": "busy_timeout",
    },
    "memory_repository": {
        "bucket": "url: s3://bucket/prefix", "prefix": "url: s3://bucket/prefix", "path": "url: file:///path",
        "directory": "url: file:///path", "uri": "url", "location": "url", "endpoint": "endpoint_url",
        "aws_access_key_id": "access_key", "aws_secret_access_key": "secret_key", "aws_session_token": "session_token",
    },
    "memory_keyring": {
        "file": "path", "key_file": "master_key_file", "key": "master_key_file", "kind": "source", "type": "source",
        "token_file": "vault_token_file",
    },
}  # fmt: skip
#: The values of the variables that have a choice.
CHOICES: t.Final[dict[str, tuple[str, ...]]] = {
    "memory_absent": ("auto", "keep", "restore"),
    "memory_depth": ("listed", "hashed", "opened", "restored"),
    "memory_failback": ("auto", "never"),
    "memory_failover": ("auto", "never", "force"),
    "memory_failover_scope": ("auto", "namespace", "store"),
    "memory_hold_state": ("present", "absent"),
    "memory_purpose": ("forensic", "scheduled", "baseline", "failback"),
    "memory_respond": ("all", "fence", "evidence"),
    "memory_restore_expiry": ("keep", "rebase"),
    "memory_schedule": ("systemd", "cron"),
    "memory_schedule_scope": ("user", "system"),
    "memory_schedule_state": ("present", "absent"),
    "memory_strategy": ("auto", "soft", "hard", "rotate"),
}
#: What other variables are made of. Texts and paths are not here: the module that takes one says what it may be.
TYPES: t.Final[dict[str, tuple[str, ...]]] = {
    "bool": (
        "memory_accept_loss", "memory_again", "memory_awx_update_secrets", "memory_create", "memory_doctor_fail",
        "memory_doctor_probe", "memory_dr_switch", "memory_failover_required", "memory_force", "memory_metrics_scan",
        "memory_metrics_show", "memory_new_repository", "memory_retire", "memory_schedule_enable",
    ),
    "int": ("memory_awx_approval_seconds", "memory_keep_last"),
    "list": (
        "memory_awx_credentials", "memory_awx_notifications", "memory_awx_schedules", "memory_doctor_checks",
        "memory_logs", "memory_namespaces", "memory_schedule_arguments", "memory_schedule_jobs",
    ),
    "dict": (
        *OPTIONS, "memory_hit_rate_source", "memory_new_master_key", "memory_owners", "memory_route",
        "memory_schedule_every", "memory_search",
    ),
    "duration": (
        "memory_failover_min_interval", "memory_keep_forensic", "memory_keep_grace", "memory_keep_incidents",
        "memory_keep_read_log", "memory_keep_tombstones", "memory_keep_within", "memory_keep_write_log",
        "memory_key_age", "memory_metrics_window", "memory_min_interval", "memory_monitor_interval",
        "memory_monitor_seconds", "memory_recent", "memory_schedule_jitter", "memory_scrub_seconds",
    ),
}  # fmt: skip
#: Options of mappings that are numbers, and those that are durations.
NUMBERS: t.Final[dict[str, tuple[str, ...]]] = {
    "memory_slo": ("accuracy_gain", "hit_rate", "max_loss"),
    "memory_doctor": ("free",),
    "memory_keep": OPTIONS["memory_keep"],
}
DURATIONS: t.Final[dict[str, tuple[str, ...]]] = {
    "memory_slo": ("rpo", "rto"),
    "memory_doctor": ("drill", "key", "scrub", "skew"),
}
_UNITS: t.Final = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_LONGEST: t.Final = 100 * 366 * 86400.0


def seconds(value: t.Any) -> float:
    """A duration as a person gives it. Errors: ValueError."""
    found = math.nan
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([a-z]*)\s*", value)
        if match and match.group(2) in _UNITS:
            found = float(match.group(1)) * _UNITS[match.group(2)]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        found = float(value) if abs(value) < 1e15 else math.nan
    if not 0 <= found <= _LONGEST:
        raise ValueError(f"{value!r:.40} is not a duration from 0 s to 100 years.")
    return found


_MEANT: t.Final[dict[str, tuple[t.Callable[[t.Any], t.Any], str]]] = {
    "bool": (check_type_bool, "true or false"),
    "int": (check_type_int, "a whole number"),
    "list": (check_type_list, "a list, in JSON on the command line"),
    "dict": (check_type_dict, "a mapping, in the inventory or in JSON on the command line"),
    "duration": (seconds, "seconds, or a number with s, m, h or d, such as 15m"),
    "number": (check_type_float, "a number"),
}
#: Mappings that roles look into: a text with all of it in it, which modules understand, would be without effect there.
LOOKED_INTO: t.Final = (
    "memory_doctor", "memory_keep", "memory_owners", "memory_route", "memory_schedule_every", "memory_slo",
    "memory_store",
)  # fmt: skip
ALIKE: t.Final = 0.7


def wrong_type(kind: str, variable: str, value: t.Any) -> list[str]:
    """A sentence when ``value`` cannot be made a ``kind`` of TYPES. What is in a list or a mapping is not told."""
    if value in (None, ""):
        return []
    if kind == "dict" and isinstance(value, str) and variable in LOOKED_INTO:
        return [_no_mapping(variable)]
    check, meant = _MEANT[kind]
    try:
        check(value)
    except (TypeError, ValueError):
        shown = "a list" if isinstance(value, (list, tuple)) else "a mapping" if isinstance(value, t.Mapping) else ""
        shown = shown or ("a text" if kind == "dict" and isinstance(value, str) else f"{value!s:.60}")
        return [f"{variable} cannot be {shown}; nothing was changed. Next: set it to {meant}."]
    return []


def wrong_options(variable: str, value: t.Any) -> list[str]:
    """One sentence for each option that ``variable`` does not have, or for a value that is no mapping."""
    if isinstance(value, str) and value:
        try:
            said = wrong_options(variable, check_type_dict(value))
        except TypeError:
            return [_no_mapping(variable)]
        return said or wrong_type("dict", variable, value)
    if not isinstance(value, t.Mapping):
        return wrong_type("dict", variable, value)
    wrong = [_no_option(variable, str(name)) for name in value if name not in OPTIONS[variable]]
    for kind, options in (("number", NUMBERS), ("duration", DURATIONS)):
        for name in options.get(variable, ()):
            wrong += wrong_type(kind, f"{variable}.{name}", value.get(name))
    return wrong


def _no_mapping(variable: str) -> str:
    first = OPTIONS.get(variable, ("…",))[0]
    return (
        f"{variable} is a text and has to be a mapping; nothing was changed. Next: set it in the inventory, or with "
        f'all of it in JSON: -e \'{{"{variable}": {{"{first}": …}}}}\'.'
    )


def _no_option(variable: str, name: str) -> str:
    options, called = OPTIONS[variable], CALLED.get(variable, {})
    close = difflib.get_close_matches(name.lower(), [*options, *called], n=1, cutoff=ALIKE)
    meant = f"did you mean {called.get(close[0], close[0])}?" if close else f"use one of: {', '.join(options)}."
    return f"{variable} has no option {name:.60}; nothing was changed. Next: {meant}"


def wrong_choice(variable: str, value: t.Any) -> list[str]:
    """A sentence when ``variable`` has none of its values."""
    choices = CHOICES[variable]
    if value in (None, "") or value in choices:
        return []
    close = difflib.get_close_matches(str(value).lower(), choices, n=1)
    meant = f"did you mean {close[0]}?" if close else f"set it to one of: {', '.join(choices)}."
    return [f"{variable} cannot be {value!s:.60}; nothing was changed. Next: {meant}"]
