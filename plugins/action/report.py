# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The incident report, made on the controller from the steps it kept: no connection, so it works without hosts."""

from __future__ import annotations

import contextlib
import json
import os
import time
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.memops.agent_memory.plugins.plugin_utils import _live, _report, _report_html, _report_text
from ansible_collections.memops.agent_memory.plugins.plugin_utils._commands import inventories, one_of_several
from ansible_collections.memops.agent_memory.plugins.plugin_utils._reader import end_unread
from ansible_collections.memops.agent_memory.plugins.plugin_utils._report_happened import (
    planned,
    refusals,
    would_happen,
)
from ansible_collections.memops.agent_memory.plugins.plugin_utils._report_input import PASS, moment, read_steps, worst
from ansible_collections.memops.agent_memory.plugins.plugin_utils._report_words import title
from ansible_collections.memops.agent_memory.plugins.plugin_utils._steps import (
    STEPS,
    incident_of,
    make_incident_dir,
    no_incident,
    of_this_run,
    report_dir,
)
from ansible_collections.memops.agent_memory.plugins.plugin_utils._traces import Traces, of_run

display = Display()


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec(
            {
                "namespace": {"type": "str", "required": True},
                "incident": {"type": "str"},
                "cluster": {"type": "str"},
                "report_dir": {"type": "path"},
                "slo": {"type": "dict", "default": {}},
                "template": {"type": "path"},
                "quiet": {"type": "bool", "default": False},
            }
        )
        host, directory = str(task_vars.get("inventory_hostname", "")), report_dir(args["report_dir"])
        mine = of_this_run(host, args["namespace"])
        args["only_cluster"] = one_of_several(task_vars)
        incident = args["incident"] or incident_of(directory, host, args["namespace"], cluster=args["cluster"])
        if self._task.check_mode:
            return self._rehearsed(mine, args, incident)
        try:
            result = self._written(directory, mine, args, incident)
        except OSError as exc:
            return {
                "failed": True,
                "msg": f"The report cannot be written to {directory}: {exc.strerror or exc}. "
                "Next: set memory_report_dir to a folder that can be written, then run the report playbook.",
            }
        endpoint = self._templar.template(task_vars.get("memory_otlp_endpoint"))
        if endpoint and mine:
            traces = Traces(str(endpoint), host, args["namespace"])
            begun = moment(mine[0]["started"])
            spans = of_run(traces, result["report"], begun.timestamp() if begun else time.time())
            problem = traces.add(spans, incident, last=True)
            if problem:
                result["warnings"] = [problem]
        return result

    def cleanup(self, force: bool = False) -> None:
        super().cleanup(force)
        end_unread()

    def _build(
        self, steps: list[t.Any], unreadable: int, args: dict[str, t.Any], incident: str | None, listed: int | None
    ) -> dict[str, t.Any]:
        return _report.build_report(
            steps,
            incident=incident,
            namespace=args["namespace"],
            cluster=args["cluster"],
            slo=args["slo"],
            inventory=inventories(),
            only_cluster=args["only_cluster"],
            lost_listed=listed,
            unreadable=unreadable,
        )

    def _written(
        self, directory: str, mine: list[t.Any], args: dict[str, t.Any], incident: str | None
    ) -> dict[str, t.Any]:
        folder = make_incident_dir(directory, incident or no_incident())
        steps, unreadable = read_steps(os.path.join(folder, STEPS))
        steps = steps or mine
        _list_lost(folder, steps)
        report = self._build(steps, unreadable, args, incident, _lines(os.path.join(folder, "lost_keys.jsonl")))
        paths = _report.write_report(folder, report, _report_html.render(report, args["template"]))
        several = args["only_cluster"]
        table = _report_text.render(report, paths["html"], cluster=several)
        if not args["quiet"]:
            width = _live.steps_shown()
            shown = {step["name"] for step in mine}
            if width and all(step["name"] in shown for step in report["steps"]):
                short = _report_text.render(report, paths["html"], width=width, steps=False, cluster=several)
                display.display("\n" + short + "\n")
            else:
                display.display("\n" + table + "\n")
        return {
            "changed": False,
            "namespace": args["namespace"],
            "verdict": report["verdict"],
            "reasons": [reason["text"] for reason in report["details"]["reasons"]],
            "state": report["state"],
            "title": title(report),
            "next_command": report["next_command"],
            "incident": incident,
            "verdicts": {step["name"]: step["verdict"] for step in report["steps"]},
            "path_json": paths["json"],
            "path_html": paths["html"],
            "table": table.splitlines(),
            "report": {k: v for k, v in report.items() if k not in ("details", "steps")},
        }

    def _rehearsed(self, mine: list[t.Any], args: dict[str, t.Any], incident: str | None) -> dict[str, t.Any]:
        """In check mode nothing happened and nothing is written: say what would."""
        lines = [f"CHECK MODE  {args['namespace'] or 'the whole store'}: nothing was changed"]
        told, refused = would_happen(mine), refusals(mine)
        for step, (name, changes, said), why in zip(mine, told, refused):
            if step["failed"] and _live.steps_shown():
                said = ""
            would = "failed" if step["failed"] else "would fail" if why else "would change" if changes else "no change"
            lines.append(f"{name:<14} {would:<14} {said}".rstrip())
        plan = planned(next((s["result"] for s in reversed(mine) if s["name"] == "plan"), {}))
        if plan:
            lines.append("plan: " + plan)
        verdicts = [str(step["verdict"]) for step in mine if step["failed"]]
        if mine and not verdicts:
            following = next((why.partition(" Next: ")[2] for why in refused if why), "")
            if any(refused) and not following:
                following = self._build(mine, 0, args, incident, None)["next_command"]
            does = "does it" if any(changes for _name, changes, _said in told) else "changes nothing either"
            lines.append("Next: " + (following or f"the same command without --check {does}."))
        if not args["quiet"]:
            display.display("\n" + "\n".join(lines) + "\n")
        return {
            "changed": False,
            "namespace": args["namespace"],
            "verdict": worst(PASS, *verdicts),
            "state": "untouched",
            "incident": incident,
            "table": lines,
        }


def _list_lost(folder: str, steps: list[t.Any]) -> None:
    """lost_keys.jsonl beside the report; a list of more keys than a module result holds was fetched by the role."""
    path = os.path.join(folder, "lost_keys.jsonl")
    plan = next((s["result"] for s in reversed(steps) if s.get("name") == "plan" and s["result"].get("records")), None)
    if plan is None:
        home = (s["result"] for s in reversed(steps) if s.get("name") == "failback" and s["result"].get("lost"))
        plan = next(({**result, "lost_total": result["lost"]} for result in home), None)
    if plan is not None and not os.path.exists(path):
        keys = plan.get("lost_keys") or []
        if len(keys) == plan.get("lost_total"):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
            with open(descriptor, "w", encoding="utf-8", errors="replace") as stream:
                stream.writelines(json.dumps({"key": key}) + "\n" for key in keys)
    with contextlib.suppress(OSError):  # the role's copy comes with the mode of the run; keys are not for everybody
        os.chmod(path, os.stat(path).st_mode & 0o640)


def _lines(path: str) -> int | None:
    try:
        with open(path, "rb") as stream:
            return sum(1 for _line in stream)
    except OSError:
        return None
