# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The commands that people copy, and what stands behind ``-e`` in them: what a tenant chose stays text, for shell and
Ansible. The controller puts its inventories in (plugin_utils/_commands.py).

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


def run(playbook: str, **variables: str | t.Sequence[str]) -> str:
    """The command that runs a playbook, as a shell takes it; a list stays one."""
    words = f"ansible-playbook memops.agent_memory.{playbook}"
    return " ".join([words, *(f"-e {extra_vars({name: value})}" for name, value in variables.items())])


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
