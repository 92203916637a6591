# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a run on the controller: in a temporary file for this run, in steps.jsonl for the runs after it.

PRIVATE to the collection. Written after every step, so that a controller that is killed leaves what it had done.
"""

from __future__ import annotations

import hashlib
import json
import os
import typing as t

from ansible import constants as C

from ._report_input import read_steps

DEFAULT_REPORT_DIR = "memops-reports"


def report_dir(value: t.Any) -> str:
    """The folder of all reports as an absolute path."""
    return os.path.abspath(os.path.expanduser(str(value or DEFAULT_REPORT_DIR)))


def incident_dir(directory: str, incident: str) -> str:
    return os.path.join(directory, incident)


def remember(host: str, step: t.Dict[str, t.Any]) -> None:
    """Keep a step of this run. It goes into Ansible's temporary folder on the controller, which ends with the run."""
    _append(_run_file(host), [step])


def of_this_run(host: str, namespace: str) -> t.List[t.Dict[str, t.Any]]:
    """What this run did for one namespace, in order."""
    return [s for s in read_steps(_run_file(host))[0] if s.get("namespace") == namespace]


def save(directory: str, host: str, namespace: str) -> None:
    """Append to steps.jsonl of the incident what this run did and is not there yet. Raises OSError."""
    steps = of_this_run(host, namespace)
    incident = next((s["result"].get("incident") for s in reversed(steps) if s["result"].get("incident")), None)
    if not incident:
        return
    folder = incident_dir(directory, str(incident))
    os.makedirs(folder, mode=0o750, exist_ok=True)
    path = os.path.join(folder, "steps.jsonl")
    known = {_identity(s) for s in read_steps(path)[0]}
    _append(path, [s for s in steps if _identity(s) not in known])


def _identity(step: t.Mapping[str, t.Any]) -> t.Tuple[t.Any, ...]:
    return tuple(step.get(name) for name in ("attempt", "host", "name", "started"))


def _run_file(host: str) -> str:
    name = hashlib.sha256(host.encode("utf-8", "replace")).hexdigest()[:16]
    return os.path.join(str(C.DEFAULT_LOCAL_TMP), f"memops-steps-{name}.jsonl")


def _append(path: str, steps: t.Sequence[t.Mapping[str, t.Any]]) -> None:
    if not steps:
        return
    text = "".join(json.dumps(s, separators=(",", ":"), default=str) + "\n" for s in steps)
    torn = os.path.exists(path) and not _ends_whole(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    try:
        os.write(descriptor, (("\n" if torn else "") + text).encode("utf-8", "replace"))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ends_whole(path: str) -> bool:
    with open(path, "rb") as stream:
        stream.seek(0, os.SEEK_END)
        if stream.tell() == 0:
            return True
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"
