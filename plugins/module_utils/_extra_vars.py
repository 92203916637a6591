# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What stands behind ``-e`` in the commands that people copy: what a tenant chose stays text, for shell and Ansible.

PRIVATE to the collection.
"""

from __future__ import annotations

import json
import re
import shlex
import typing as t

_PLAIN = re.compile(r"[A-Za-z0-9_.:@/+-]+")
_TEMPLATE = re.compile(r"\{[{%#]")


def is_template(value: t.Any) -> bool:
    """Whether Ansible would evaluate a text, if it were given as a variable."""
    return isinstance(value, str) and _TEMPLATE.search(value) is not None


def extra_vars(variables: t.Mapping[str, t.Any]) -> str:
    """One argument of ``-e`` for a shell.

    What Ansible would take for a template is marked !unsafe: it trusts what it is given by ``-e``.
    """
    if len(variables) == 1:
        ((name, value),) = variables.items()
        if isinstance(value, str) and _PLAIN.fullmatch(value):
            return f"{name}={value}"
    plain = json.dumps(variables)
    # name=value would split at blanks
    return shlex.quote(_marked(variables) if is_template(plain) else plain)


def for_namespace(namespace: str) -> str:
    """The whole option, for a sentence that names a playbook and no command."""
    return "-e " + extra_vars({"memory_namespace": namespace})


def _marked(value: t.Any) -> str:
    """YAML in one line."""
    if isinstance(value, str):
        return ("!unsafe " if is_template(value) else "") + f'"{"".join(map(_escaped, value))}"'
    if isinstance(value, t.Mapping):
        return "{" + ", ".join(f"{_marked(name)}: {_marked(one)}" for name, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_marked, value)) + "]"
    return json.dumps(value)


def _escaped(char: str) -> str:
    """Of a quoted text; YAML, unlike JSON, knows no surrogates and takes no DEL."""
    if ord(char) > 0xFFFF:
        return f"\\U{ord(char):08x}"
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]
