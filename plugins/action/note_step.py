# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a step that is made of several tasks, such as a failover, for the report. Works on the controller alone."""

from __future__ import annotations

import time
import typing as t

from ansible.plugins.action import ActionBase

from ansible_collections.memops.agent_memory.plugins.plugin_utils._attempt import attempt
from ansible_collections.memops.agent_memory.plugins.plugin_utils._steps import (
    incident_of,
    of_this_run,
    remember,
    report_dir,
    save,
)
from ansible_collections.memops.agent_memory.plugins.plugin_utils._traces import Traces, of_step


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec(
            {
                "step": {"type": "str", "required": True},
                "namespace": {"type": "str", "required": True},
                "verdict": {"type": "str", "default": "pass", "choices": ["pass", "fail", "could-not-verify"]},
                "step_changed": {"type": "bool", "default": False},
                "started": {"type": "float"},
                "detail": {"type": "str", "default": ""},
                "result": {"type": "dict", "default": {}},
                "report_dir": {"type": "path"},
                "unless_failed": {"type": "bool", "default": False},
            }
        )
        now = time.time()
        started = now if args["started"] is None else args["started"]
        host = str(task_vars.get("inventory_hostname", ""))
        if args["unless_failed"] and any(one["failed"] for one in of_this_run(host, args["namespace"])):
            return {"changed": False, "step": None}
        step = {
            "name": args["step"],
            "namespace": args["namespace"],
            "verdict": args["verdict"],
            "failed": args["verdict"] == "fail",
            "changed": args["step_changed"],
            "started": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(started)) + f".{int(started * 1000) % 1000:03d}Z",
            "seconds": round(max(0.0, now - started), 3),
            "host": host,
            "attempt": attempt(task_vars.get("awx_workflow_job_id")),
            "check": bool(self._task.check_mode),
            "detail": args["detail"].strip(),
            "result": args["result"],
        }
        remember(host, step)
        if self._task.check_mode:
            return {"changed": False, "step": step}
        variables = ("memory_incident", "memory_cluster", "memory_otlp_endpoint")
        named, cluster, endpoint = (
            str(value) if value else None for value in map(self._templar.template, map(task_vars.get, variables))
        )
        directory, warnings = report_dir(args["report_dir"]), []
        try:
            save(directory, host, args["namespace"], named=named, cluster=cluster)
        except OSError as exc:
            warnings.append(f"The steps cannot be kept for the report: {exc}")
        if endpoint:
            traces = Traces(endpoint, host, args["namespace"])
            incident = incident_of(directory, host, args["namespace"], named=named, cluster=cluster)
            problem = traces.add(of_step(traces, step, started), incident, last=False)
            warnings += [problem] if problem else []
        return {"changed": False, "step": step, **({"warnings": warnings} if warnings else {})}
