# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell the channels of an event, once per incident. Works on the controller alone and never fails the runbook."""

from __future__ import annotations

import os
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.memops.agent_memory.plugins.plugin_utils import _notify
from ansible_collections.memops.agent_memory.plugins.plugin_utils._attempt import attempt
from ansible_collections.memops.agent_memory.plugins.plugin_utils._steps import (
    incident_dir,
    incident_of,
    make_incident_dir,
    of_this_run,
    remember,
    report_dir,
    save,
)

display = Display()
TEMPLATES = os.path.join(os.path.dirname(__file__), "..", "..", "roles", "notify", "templates")
STEP = "notify_"


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec(
            {
                "state": {"type": "str", "default": "told", "choices": ["told", "valid", "reachable"]},
                "event": {"type": "str", "choices": list(_notify.EVENTS)},
                "channels": {"type": "raw", "required": True},
                "namespace": {"type": "str", "default": ""},
                "incident": {"type": "str"},
                "cluster": {"type": "str", "default": "memory"},
                "reason": {"type": "str", "default": ""},
                "impact": {"type": "list", "elements": "dict", "default": []},
                "report_dir": {"type": "path"},
                "keep": {"type": "bool", "default": True},
                "without_incident": {"type": "bool", "default": True},
            }
        )
        if args["state"] != "told":
            return _looked_at(args["channels"], args["state"] == "reachable")
        if not args["event"]:
            return {"failed": True, "msg": "There is no event to tell of; nobody was told. Next: set event."}
        started, host = time.time(), str(task_vars.get("inventory_hostname", ""))
        directory, namespace, event = report_dir(args["report_dir"]), args["namespace"], args["event"]
        incident = args["incident"] or (
            incident_of(directory, host, namespace, cluster=args["cluster"]) if args["keep"] else None
        )
        if not incident and not args["without_incident"] and not self._task.check_mode:
            return {"changed": False, "told": [], "not_delivered": {}, "msg": "There is no incident to tell of."}
        reason = args["reason"].strip()
        folder = incident_dir(directory, incident) if incident else None
        escalated = {
            name
            for step in of_this_run(host, namespace)
            if step["name"] == STEP + "escalated" and event == "failed"
            for name in [*step["result"].get("told", []), *step["result"].get("told_before", [])]
        }
        failed: dict[str, str] = {}
        due, before = [], []
        for name, channel in _notify.named(args["channels"]):
            problem = _notify.wrong(channel)
            if problem:
                failed[name] = problem
            elif event not in _notify.wanted(channel) or name in escalated:
                continue
            elif folder and _notify.told_already(folder, name, event, reason):
                before.append(name)
            else:
                due.append((name, channel))
        if self._task.check_mode:
            names = [name for name, _channel in due]
            return {"changed": False, "told": [], "not_delivered": failed, "msg": _said(event, names, failed, True)}
        values = _values(args, incident, host, reason)
        outcome = _notify.deliver(due, values, TEMPLATES) if due else {}
        told = [name for name, why in outcome.items() if why is None]
        failed.update({name: why for name, why in outcome.items() if why is not None})
        result: dict[str, t.Any] = {
            "changed": bool(told),
            "told": told,
            "told_before": before,
            "not_delivered": failed,
            "msg": _said(event, told, failed, False),
        }
        try:
            if told and incident:
                _notify.note_told(make_incident_dir(directory, incident), told, event, reason)
            if args["keep"] and (told or failed or (before and event == "escalated")):
                remember(host, self._step(result, args, started, host, attempt(task_vars.get("awx_workflow_job_id"))))
                save(directory, host, namespace, named=incident, cluster=args["cluster"])
        except OSError as exc:
            result["warnings"] = [f"Who was told cannot be noted in {directory}: {exc.strerror or exc}"]
        return result

    def _step(
        self, result: dict[str, t.Any], args: dict[str, t.Any], started: float, host: str, run: str
    ) -> dict[str, t.Any]:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(started)) + f".{int(started * 1000) % 1000:03d}Z"
        return {
            "name": STEP + args["event"].replace("-", "_"),
            "namespace": args["namespace"],
            # Who could not be told says nothing about the memories.
            "verdict": "pass",
            "failed": False,
            "changed": False,
            "started": stamp,
            "seconds": round(time.time() - started, 3),
            "host": host,
            "attempt": run,
            "check": False,
            "detail": result["msg"],
            "result": {key: result[key] for key in ("told", "told_before", "not_delivered")},
        }


def _values(args: dict[str, t.Any], incident: str | None, host: str, reason: str) -> dict[str, t.Any]:
    """What a template may use."""
    event, namespace, cluster = args["event"], args["namespace"], args["cluster"]
    whose = f"memory of {namespace}" if namespace else "agent memory"
    return {
        "event": event,
        "severity": _notify.EVENTS[event],
        "action": "resolve" if event in _notify.RESOLVING else "trigger",
        "dedup_key": _notify.dedup_key(incident, cluster, namespace, event),
        "summary": f"{event.replace('-', ' ').capitalize()}: {whose} in cluster {cluster}"[:500],
        "namespace": namespace,
        "cluster": cluster,
        "incident": incident or "",
        "host": host,
        "reason": reason[:1000],
        "impact": [{str(k): str(v) for k, v in one.items()} for one in args["impact"]],
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _looked_at(channels: t.Any, connect: bool) -> dict[str, t.Any]:
    """Whether each channel could be told of something; all at once, since each may take a few seconds."""
    args = {"event": "isolated", "namespace": "a namespace", "cluster": "memory", "impact": []}
    values = _values(args, "an incident", "a host", "")
    found: dict[str, str | None] = {}

    def look(name: str, channel: t.Any) -> None:
        found[name] = (
            _notify.wrong(channel)
            or _notify.misspelt(channel)
            or _notify.unusable(channel, values, TEMPLATES, connect)
        )

    pairs = _notify.named(channels)
    with ThreadPoolExecutor(max(1, min(16, len(pairs)))) as pool:
        for future in [pool.submit(look, *pair) for pair in pairs]:
            future.result()
    failed = {name: why for name, why in sorted(found.items()) if why is not None}
    told = "; ".join(f"{name}: {why}" for name, why in failed.items())
    for name, why in failed.items() if not connect else ():
        display.warning(f"The notification channel {name} cannot be told of anything: {why}.")
    usable = [name for name, channel in pairs if name not in failed]
    return {"changed": False, "told": [], "usable": usable, "not_delivered": failed, "msg": told or "all can be used"}


def _said(event: str, told: list[str], failed: dict[str, str], check: bool) -> str:
    parts = [("would tell " if check else "told ") + ", ".join(told)] if told else []
    parts += [f"not delivered to {name}: {why}" for name, why in failed.items()]
    return f"{event}: " + ("; ".join(parts) or "nobody new to tell")
