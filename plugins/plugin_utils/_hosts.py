# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands between the controller and a host, as one sentence.

PRIVATE to the collection.
"""

from __future__ import annotations

import re
import typing as t

AGAIN = "then run the same command again."
PASSWORD = re.compile(r"(?:Missing|Incorrect) \w+ password")
FORBIDDEN = re.compile(r".*(?:not in the sudoers|is not allowed to (?:execute|run)|unknown user|sudo: .*not found).*")


def unreachable(host: str, said: str) -> t.Dict[str, t.Any]:
    """A step of a host that cannot be reached. Of ssh's own words the last count: before them stand a greeting of the
    host, and the wall that it draws around a changed key."""
    lines = [line.strip() for line in said.rpartition("can be reached over ssh: ")[2].splitlines()]
    lines = [line for line in lines if line and not re.match(r"debug\d: ", line)]
    why = " ".join(lines[-2:])[-300:].rstrip(". ") or "ssh gave no reason"
    then = f"mend the connection, {AGAIN}"
    if "has changed and you have requested strict checking" in why:
        then = f"see who answers there; where {host} was set up anew, forget its former key (ssh-keygen -R), {AGAIN}"
    return {
        **failed("host-unreachable", f"{host} cannot be reached: {why}. Next: {then}"),
        "reason": f"cannot be reached: {why}.",
    }


def refused(host: str, said: str) -> t.Optional[t.Dict[str, t.Any]]:
    """A step that a host lets in and does not let work; None when that is not what ``said`` tells."""
    if "becoming an unprivileged user" in said:
        return failed(
            "host-refused",
            f"Who connects to {host} cannot hand the module to the user that it becomes. "
            "Next: set ansible_pipelining: true in the inventory, or install the package acl there.",
        )
    found = PASSWORD.search(said)
    if found:
        then = "run the same command with --ask-become-pass, or set ansible_become_password for this host (in a vault)."
        return _no_other_user(host, found[0], then)
    if "Failed to create remote module tmp path" in said:
        why, path = re.search(r"\[Errno \d+\] ([^:]+)", said), re.search(r"at dir '?([^' ]+)", said)
        return failed(
            "host-refused",
            f"On {host} nothing can be written to {path[1] if path else 'the home of the user'}, where Ansible works "
            f"({why[1] if why else 'no reason given'}). Next: mend that, or name another folder in ansible_remote_tmp "
            f"for this host, {AGAIN}",
        )
    return None


def forbidden(host: str, said: str) -> t.Optional[t.Dict[str, t.Any]]:
    """As ``refused``, of what a host said in place of a module that it did not begin."""
    found = FORBIDDEN.search(said)
    then = f"let sudo allow it there, or correct ansible_become_user, {AGAIN}"
    return _no_other_user(host, found[0], then) if found else None


def _no_other_user(host: str, why: str, then: str) -> t.Dict[str, t.Any]:
    why = why.strip().rstrip(".")[-200:]
    return failed("host-refused", f"Who connects to {host} could not become another user ({why}). Next: {then}")


def failed(error: str, said: str) -> t.Dict[str, t.Any]:
    return {"failed": True, "changed": False, "error": error, "msg": said}
