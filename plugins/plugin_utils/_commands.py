# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that a person copies: what a memory host says knows no inventory, so the controller puts its own in.

PRIVATE to the collection.
"""

from __future__ import annotations

import dataclasses
import shlex
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._extra_vars import extra_vars, run

_BARE = "ansible-playbook memops.agent_memory."
#: Results that hold sentences for people. Others hold records and are left as they are.
_SPOKEN = ("msg", "reason", "reasons", "warnings", "warned", "next_step", "checks", "refused")


def inventories() -> t.List[str]:
    """The inventories of this run, as ansible-playbook was given them; [] where none was named."""
    from ansible import context

    return [str(one) for one in (context.CLIARGS.get("inventory") or ()) if one]


def one_of_several(task_vars: t.Mapping[str, t.Any]) -> str:
    """The cluster of this host, where the inventory has others beside it: what a command says of a namespace or of a
    snapshot is meant for this one, and others may have a namespace of the same name. Else ""."""
    mine = task_vars.get("memory_cluster") or "memory"
    everybody = task_vars.get("hostvars") or {}
    for host in task_vars.get("groups", {}).get("all", ()):
        other = everybody[host]
        if "memory_store" in other and (other.get("memory_cluster") or "memory") != mine:
            return str(mine)
    return ""


def options(sources: t.Sequence[str], cluster: str = "") -> str:
    """``-i`` for a shell, and the one ``cluster`` of these inventories that is meant ("": there are no others)."""
    return (" ".join("-i " + shlex.quote(one) for one in sources) or "-i <inventory>") + (
        f" -e {extra_vars({'memory_only_cluster': cluster})}" if cluster else ""
    )


def command_of(
    playbook: str,
    hostvars: t.Mapping[str, t.Any],
    cluster: str,
    variables: t.Optional[t.Mapping[str, t.Any]] = None,
) -> str:
    """The command that runs a playbook with the inventories of this run, on this one of their clusters."""
    everybody = {"hostvars": hostvars, "groups": {"all": list(hostvars)}, "memory_cluster": cluster}
    command = f"ansible-playbook {options(inventories(), one_of_several(everybody))} memops.agent_memory."
    return run(playbook, **(variables or {})).replace(_BARE, command, 1)


def whole_command(sentence: str) -> str:
    """The command that a next step ends with; "" when it ends otherwise."""
    _before, found, command = sentence.partition("ansible-playbook ")
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    pairs = [word for word in words if not word.startswith("memops.agent_memory.")]
    whole = len(words) == len(pairs) + 1 and len(pairs) % 2 == 0 and all(word in ("-i", "-e") for word in pairs[::2])
    return found + command if whole else ""


def complete(result: t.Dict[str, t.Any], sources: t.Sequence[str], cluster: t.Callable[[], str] = str) -> None:
    """Put the inventories, and which of their clusters is meant, into the commands that a module's result names.
    ``cluster`` is called when there is such a command."""
    for name in _SPOKEN if sources else ():
        if name in result and _BARE in repr(result[name]):
            command = f"ansible-playbook {options(sources, cluster())} memops.agent_memory."
            result[name] = _completed(result[name], command)
    # ansible-core 2.19 and later print [ERROR] from an object of their own, which was made before
    captured = result.get("exception")
    event = getattr(captured, "event", None)
    if sources and dataclasses.is_dataclass(captured) and dataclasses.is_dataclass(event):
        said = {"msg": result.get("msg", getattr(event, "msg", ""))}
        result["exception"] = dataclasses.replace(captured, event=dataclasses.replace(event, **said))  # type: ignore[type-var]


def _completed(value: t.Any, command: str) -> t.Any:
    if isinstance(value, str):
        return value.replace(_BARE, command)
    if isinstance(value, list):
        return [_completed(one, command) for one in value]
    if isinstance(value, dict):
        return {key: _completed(one, command) for key, one in value.items()}
    event = getattr(value, "event", None)
    if dataclasses.is_dataclass(value) and dataclasses.is_dataclass(event):  # a warning of ansible-core 2.19 and later
        said = {"msg": _completed(getattr(event, "msg", ""), command)}
        return dataclasses.replace(value, event=dataclasses.replace(event, **said))  # type: ignore[type-var]
    return value
