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
import typing as t

from ansible.module_utils.common.validation import check_type_dict

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
ALIKE: t.Final = 0.7


def wrong_options(variable: str, value: t.Any) -> list[str]:
    """One sentence for each option that ``variable`` does not have, or for a value that is no mapping."""
    if isinstance(value, str) and value:
        try:
            value = check_type_dict(value)
        except TypeError:
            return [
                f"{variable} is a text and has to be a mapping; nothing was changed. Next: set it in the inventory, or "
                f'with all of it in JSON: -e \'{{"{variable}": {{"{OPTIONS[variable][0]}": …}}}}\'.'
            ]
    if not isinstance(value, t.Mapping):
        return []
    return [_no_option(variable, str(name)) for name in value if name not in OPTIONS[variable]]


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
