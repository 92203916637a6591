# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a run on the controller: in a temporary file for this run, in steps.jsonl for the runs after it.

PRIVATE to the collection. Written after every step, so that a controller that is killed leaves what it had done.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
import typing as t

from ansible import constants as C

from ._report_input import read_steps
from ._report_run import Run

DEFAULT_REPORT_DIR = "memops-reports"
STEPS = "steps.jsonl"
_NO_INCIDENT = "no-incident-"  # begins the name of a folder for what belongs to no incident
#: Incidents of a restore, a key rotation, and the like begin so; they are no runbook's. The role report knows them.
_OPENED_BY_THEMSELVES = ("held-", "restore-", "retention-", "rotation-")


def report_dir(value: t.Any) -> str:
    """The folder of all reports as an absolute path."""
    return os.path.abspath(os.path.expanduser(str(value or DEFAULT_REPORT_DIR)))


def incident_dir(directory: str, incident: str) -> str:
    return os.path.join(directory, incident)


def no_incident() -> str:
    """The name of a folder for a report of no incident: what fails side by side has one each."""
    return _NO_INCIDENT + time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime()) + secrets.token_hex(3)


def make_incident_dir(directory: str, incident: str) -> str:
    """Make the folder of an incident, and that of all reports, for the owner and the group alone. Raises OSError."""
    folder = incident_dir(directory, incident)
    # apart: makedirs gives the mode to the last one only
    os.makedirs(directory, mode=0o750, exist_ok=True)
    os.makedirs(folder, mode=0o750, exist_ok=True)
    return folder


def remember(host: str, step: t.Dict[str, t.Any]) -> None:
    """Keep a step of this run. It goes into Ansible's temporary folder on the controller, which ends with the run."""
    _append(_run_file(host), [step])


def remember_incident(host: str, namespace: str, incident: t.Any) -> None:
    """Keep which incident a module named that is no step of its own, such as the fence of a failover."""
    if incident and not str(incident).startswith(_OPENED_BY_THEMSELVES):
        _append(_run_file(host), [{"namespace": namespace, "host": host, "result": {"incident": str(incident)}}])


def of_this_run(host: str, namespace: str) -> t.List[t.Dict[str, t.Any]]:
    """What this run did for one namespace, in order."""
    return [s for s in _lines_of_this_run(host, namespace) if s.get("name")]


def steps_since(host: str, offset: int) -> t.Tuple[t.List[t.Dict[str, t.Any]], int]:
    """The steps that this run has kept for a host beyond ``offset`` bytes, and where they end: whole lines only."""
    try:
        with open(_run_file(host), "rb") as stream:
            stream.seek(offset)
            told = stream.read()
    except OSError:
        return [], offset
    whole = told[: told.rfind(b"\n") + 1]
    return [step for step in map(json.loads, whole.splitlines()) if step.get("name")], offset + len(whole)


def incident_of(
    directory: str, host: str, namespace: str, *, named: t.Optional[str] = None, cluster: t.Optional[str] = None
) -> t.Optional[str]:
    """The incident that this run works on, or None when nothing says which.

    What the home of the namespace said counts; else the incident that the operator ``named``, else the open one in the
    report folder. A step on another host names an incident of that host's store: it is the last resort.
    """
    lines = _lines_of_this_run(host, namespace)
    home = _newest([line for line in lines if line.get("host") == host])
    if home:
        return home
    if named and os.path.isdir(incident_dir(directory, named)):
        return named
    # a step that went well and named none has seen a store without an open incident
    if any("incident" in line["result"] for line in lines) and not any(line.get("failed") for line in lines):
        return named or _newest(lines)
    return open_incident(directory, host, namespace, cluster) or named or _newest(lines)


def open_incident(directory: str, host: str, namespace: str, cluster: t.Optional[str] = None) -> t.Optional[str]:
    """The newest incident of a namespace that the report folder knows, unless it was closed."""
    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            with contextlib.suppress(OSError):
                if not entry.name.startswith(_NO_INCIDENT):
                    found.append((os.stat(os.path.join(entry.path, STEPS)).st_mtime_ns, entry.name))
    for _changed, incident in sorted(found, reverse=True):
        try:
            steps = read_steps(os.path.join(directory, incident, STEPS))[0]
        except OSError:
            continue
        if not any(s.get("namespace") == namespace and s.get("host") == host for s in steps):
            continue
        known = _cluster(os.path.join(directory, incident))
        if cluster and known and cluster != known:
            continue
        run = Run(steps)
        over = run.state in ("closed", "untouched") or (run.state == "released" and run.lifted_alone)
        return None if over else incident
    return None


def save(
    directory: str, host: str, namespace: str, *, named: t.Optional[str] = None, cluster: t.Optional[str] = None
) -> None:
    """Append to steps.jsonl of the incident what this run did and is not there yet. Raises OSError."""
    incident = incident_of(directory, host, namespace, named=named, cluster=cluster)
    if not incident:
        return
    path = os.path.join(make_incident_dir(directory, incident), STEPS)
    known = {_identity(s) for s in read_steps(path)[0]}
    _append(path, [s for s in of_this_run(host, namespace) if _identity(s) not in known])


def _lines_of_this_run(host: str, namespace: str) -> t.List[t.Dict[str, t.Any]]:
    return [s for s in read_steps(_run_file(host))[0] if s.get("namespace") == namespace]


def _newest(lines: t.Sequence[t.Mapping[str, t.Any]]) -> t.Optional[str]:
    told = (line["result"].get("incident") for line in reversed(lines))
    return next((str(incident) for incident in told if incident), None)


def _cluster(folder: str) -> t.Optional[str]:
    try:
        with open(os.path.join(folder, "report.json"), encoding="utf-8") as stream:
            report = json.load(stream)
    except (OSError, ValueError):
        return None
    return report.get("cluster") if isinstance(report, dict) else None


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
