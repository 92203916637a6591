# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: runbook
type: stdout
short_description: The runbook as steps rather than tasks
version_added: 1.0.0
description:
  - Prints a line for each step of the runbook (result, time, what happened), what else changed something, what the
    playbooks have to say, and each error once, in full, with the next command. Includes, checks of arguments, and
    whatever was skipped or did nothing are not shown.
  - On a terminal the last line says what goes on at the moment, with its progress.
  - With C(-v) everything is shown, as Ansible's own callback C(default) does.
requirements:
  - set as stdout in configuration (C(ANSIBLE_STDOUT_CALLBACK), or C(stdout_callback) in C(ansible.cfg))
extends_documentation_fragment:
  - default_callback
  - result_format_callback
author:
  - The memops.agent_memory maintainers (@memops)
"""

EXAMPLES = r"""
ansible.cfg: |
  [defaults]
  stdout_callback = memops.agent_memory.runbook
"""

import json
import os
import re
import shutil
import sys
import textwrap
import time
import typing as t

from ansible import constants as C
from ansible import context
from ansible.plugins.callback.default import CallbackModule as Default

from ansible_collections.memops.agent_memory.plugins.plugin_utils import _live
from ansible_collections.memops.agent_memory.plugins.plugin_utils._report_happened import (
    happened,
    refusals,
    would_happen,
)
from ansible_collections.memops.agent_memory.plugins.plugin_utils._report_words import shown, span
from ansible_collections.memops.agent_memory.plugins.plugin_utils._steps import steps_since

COLLECTION = "memops.agent_memory."
NAME = COLLECTION + "runbook"
MARKS = {"pass": "✓", "fail": "✗"}
DEBUG = ("debug", "ansible.builtin.debug", "ansible.legacy.debug")
FAIL = ("fail", "ansible.builtin.fail", "ansible.legacy.fail")
#: Modules that only ask; they are worth a line when they change something.
ASKING = ("info", "route")
#: The first columns of a line that is part of a table.
COLUMNS = re.compile(r"(?:[\w-]+ {2,})+(?=\S)")


class CallbackModule(Default):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = NAME

    def __init__(self) -> None:
        super().__init__()
        terminal = C.DEFAULT_STDOUT_CALLBACK == NAME and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._width = shutil.get_terminal_size((100, 24)).columns
        if not self._display.verbosity:
            _live.show_steps(self._width)
            _live.use_terminal(self._width if terminal else None)
        self._begun = time.monotonic()
        self._heading = ""  # of the play, until something of it is shown
        self._hosts: set[str] = set()  # that work in this play
        self._subject: dict[str, str] = {}  # host: the namespace whose steps are shown
        self._offsets: dict[str, int] = {}  # host: how far its steps were read
        self._rehearsed: dict[tuple[str, str], list[dict[str, t.Any]]] = {}  # of (host, namespace), in check mode
        self._worked_on: dict[str, dict[str, bool]] = {}  # host: its namespaces, and whether a step of each failed
        self._started: dict[tuple[str, str], float] = {}
        self._errors: dict[str, list[str]] = {}
        self._last = ""  # what the last step said

    # --- printing -------------------------------------------------------------------------------------------------
    def _line(self, text: str = "", color: str | None = None) -> None:
        self._head()
        _live.clear()
        self._display.display(text, color=color)

    def _head(self) -> None:
        if self._heading:
            heading, self._heading = self._heading, ""
            self._line("\n" + heading, C.COLOR_HIGHLIGHT)

    def _paragraph(self, lead: str, text: str, color: str | None = None) -> None:
        """``text`` behind ``lead``, wrapped below itself; where that leaves too little room, below the lead."""
        room, text = self._width - len(lead) - 1, _printable(text)
        if room >= 24 or len(text) <= room:
            lines = textwrap.wrap(text, max(room, 24), break_long_words=False, break_on_hyphens=False) or [""]
            self._line((lead + lines[0]).rstrip(), color)
            indent = " " * len(lead)
        else:
            self._line(lead.rstrip(), color)
            indent = "    "
            lines = ["", *textwrap.wrap(text, max(20, self._width - 5), break_long_words=False, break_on_hyphens=False)]
        for line in lines[1:]:
            self._line(indent + line, color)

    def _lead(self, host: str) -> str:
        return f"  {host}  " if len(self._hosts) > 1 else "  "

    def _step(self, host: str, step: dict[str, t.Any], title: str = "") -> None:
        """A step in one line; of one that failed its task's ``title``, as the error stands below."""
        namespace = str(step.get("namespace") or "")
        if namespace and namespace != self._subject.get(host):
            if self._subject.get(host):
                self._line()
            self._subject[host] = namespace
            self._line(self._lead(host) + shown(namespace, 60), C.COLOR_HIGHLIGHT)
        if namespace:
            known = self._worked_on.setdefault(host, {})
            known[namespace] = known.get(namespace, False) or bool(step.get("failed"))
        verdict, changed = str(step.get("verdict")), bool(step.get("changed"))
        said = title if step.get("failed") else str(step.get("detail") or "")
        if verdict == "pass" and not step.get("failed"):
            said = said or happened(step["name"], step.get("result") or {})
        elif not said and not step.get("failed"):  # somebody goes on all the same
            said = "; ".join(map(str, (step.get("result") or {}).get("reasons") or ()))
        if step.get("failed") and verdict != "could-not-verify":
            verdict = "fail"
        if step.get("check"):
            before = self._rehearsed.setdefault((host, namespace), [])
            before.append(step)
            if not step.get("failed"):  # nothing was done, so nothing could be judged but what is there as it is
                verdict, (_name, changed, said) = "pass", would_happen(before)[-1]
                if refusals(before)[-1]:
                    verdict = "could-not-verify" if step.get("verdict") == "could-not-verify" else "fail"
        lead = f"{self._lead(host)}{MARKS.get(verdict, '?')} {shown(step['name'], 20):<11}{'*' if changed else ' '} "
        words = f"{span(step.get('seconds')):>8}  "
        color = C.COLOR_ERROR if verdict != "pass" else C.COLOR_CHANGED if changed else C.COLOR_OK
        self._paragraph(lead + words, shown(said, 400), color)
        self._last = said

    def _other(self, host: str, result: t.Any, task: t.Any) -> None:
        """A task that is no step by itself."""
        changed = bool(result.get("changed"))
        seconds = time.monotonic() - self._started.get((host, task._uuid), time.monotonic())
        name = task.get_name().rpartition(" : ")[2]
        lead = f"{self._lead(host)}· {'':<11}{'*' if changed else ' '} {span(seconds):>8}  "
        self._paragraph(lead, name, C.COLOR_CHANGED if changed else C.COLOR_OK)

    def _say(self, host: str, message: t.Any) -> None:
        said = message if isinstance(message, list) else [message]
        for one in said:
            text = one if isinstance(one, str) else json.dumps(one, default=str, ensure_ascii=False)
            if self._last and self._last in text:
                continue  # the step above says so
            for line in text.splitlines() or [""]:
                self._sentence(host, line)

    def _error(self, host: str, title: str, message: str, fails: bool = False) -> None:
        """An error in full, unless it only repeats what was said before (a task that fails what has failed)."""
        known = self._errors.setdefault(host, [])
        rest = message
        for said in known:
            rest = rest.replace(said, "")
        if known and fails and "Next: " not in rest:
            return
        known.append(message)
        if title:
            self._line(f"{self._lead(host)}✗ {title}", C.COLOR_ERROR)
        for part in message.splitlines():
            self._sentence(host, part, C.COLOR_ERROR)

    def _sentence(self, host: str, text: str, color: str | None = None) -> None:
        """What comes next stands on a line of its own, never broken, so that it can be copied."""
        said, following, command = text.partition(" Next: ")
        columns = COLUMNS.match(said)  # of a table: the last one is wrapped below itself
        before = columns[0] if columns else ""
        self._paragraph(self._lead(host) + "  " + _printable(before), said[len(before) :], color)
        if following:
            self._line(f"{self._lead(host)}  Next: {_printable(command)}")

    # --- what Ansible tells ---------------------------------------------------------------------------------------
    def v2_playbook_on_start(self, playbook: t.Any) -> None:
        if self._display.verbosity:
            super().v2_playbook_on_start(playbook)

    def v2_playbook_on_play_start(self, play: t.Any) -> None:
        if self._display.verbosity:
            return super().v2_playbook_on_play_start(play)
        self._play = play
        self._hosts, self._subject = set(), {}
        check = " (check: nothing is written)" if context.CLIARGS.get("check") else ""
        self._heading = play.get_name().strip() + check

    def v2_playbook_on_task_start(self, task: t.Any, is_conditional: bool) -> None:
        if self._display.verbosity:
            super().v2_playbook_on_task_start(task, is_conditional)

    def v2_playbook_on_cleanup_task_start(self, task: t.Any) -> None:
        if self._display.verbosity:
            super().v2_playbook_on_cleanup_task_start(task)

    def v2_playbook_on_handler_task_start(self, task: t.Any) -> None:
        if self._display.verbosity:
            super().v2_playbook_on_handler_task_start(task)

    def v2_playbook_on_include(self, included_file: t.Any) -> None:
        if self._display.verbosity:
            super().v2_playbook_on_include(included_file)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        if self._display.verbosity:
            return super().v2_playbook_on_no_hosts_matched()
        self._line("No host is chosen by this inventory and --limit.", C.COLOR_SKIP)

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        if self._display.verbosity:
            super().v2_playbook_on_no_hosts_remaining()

    def v2_runner_on_start(self, host: t.Any, task: t.Any) -> None:
        if self._display.verbosity:
            return super().v2_runner_on_start(host, task)
        name = host.get_name()
        self._started[name, task._uuid] = time.monotonic()
        if task._role is not None:
            self._hosts.add(name)
        if _ours(task) and not task.action.endswith(ASKING):
            self._head()
            _live.show(f"{self._lead(name)}… {task.get_name().rpartition(' : ')[2]}")

    def v2_runner_on_ok(self, result: t.Any) -> None:
        if self._display.verbosity:
            return super().v2_runner_on_ok(result)
        host, task, told = _parts(result)
        self._warn(told)
        looped = bool(task.loop) and "results" in told
        if task.action in DEBUG:
            if not looped:
                self._said(host, told, task)
        elif not self._steps(host) and (told.get("changed") or (_ours(task) and not task.action.endswith(ASKING))):
            self._other(host, told, task)

    def v2_runner_item_on_ok(self, result: t.Any) -> None:
        if self._display.verbosity:
            return super().v2_runner_item_on_ok(result)
        host, task, told = _parts(result)
        if task.action in DEBUG:
            self._said(host, told, task)

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        if self._display.verbosity:
            return super().v2_runner_on_failed(result, ignore_errors)
        host, task, told = _parts(result)
        self._warn(told)
        title = task.get_name().rpartition(" : ")[2] + (" (ignored)" if ignore_errors else "")
        stepped = self._steps(host, title)
        failed = [one for one in told.get("results") or () if isinstance(one, dict) and one.get("failed")]
        said = [str(one.get("msg") or "") for one in failed] if task.loop else []
        message = "\n".join(one for one in said if one) or str(told.get("msg") or "failed without a word")
        for stream in ("stderr", "module_stderr", "stdout", "module_stdout"):  # of commands and of broken modules
            if told.get(stream) and str(told[stream]).strip() not in message:
                message += "\n" + str(told[stream]).strip()
        self._error(host, "" if stepped else title, message, fails=task.action in FAIL)

    def v2_runner_item_on_failed(self, result: t.Any) -> None:
        if self._display.verbosity:
            super().v2_runner_item_on_failed(result)

    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        if self._display.verbosity:
            return super().v2_runner_on_unreachable(result)
        host, task, told = _parts(result)
        self._error(host, task.get_name().rpartition(" : ")[2], str(told.get("msg") or "The host cannot be reached."))

    def v2_runner_on_skipped(self, result: t.Any) -> None:
        if self._display.verbosity:
            return super().v2_runner_on_skipped(result)
        _live.clear()

    def v2_runner_item_on_skipped(self, result: t.Any) -> None:
        if self._display.verbosity:
            super().v2_runner_item_on_skipped(result)

    def v2_on_file_diff(self, result: t.Any) -> None:
        if self._display.verbosity:
            return super().v2_on_file_diff(result)
        host, task, told = _parts(result)
        told = {"results": [told]} if "results" not in told else told
        for one in told["results"]:
            diff = self._get_diff(one["diff"]) if one.get("diff") and one.get("changed") else ""
            if diff:
                self._line(f"{self._lead(host)}  {task.get_name().rpartition(' : ')[2]}:")
                self._line(diff.rstrip("\n"))

    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        if self._display.verbosity:
            return super().v2_playbook_on_stats(stats)
        self._heading = ""
        hosts = sorted(stats.processed)
        bad = [host for host in hosts if stats.failures.get(host) or stats.dark.get(host)]
        changed = sum(stats.changed.get(host, 0) for host in hosts)
        took = span(time.monotonic() - self._begun)
        self._line()
        if bad:
            self._line(f"Failed after {took} on {', '.join(map(self._whom, bad))}.", C.COLOR_ERROR)
        else:
            self._line(f"Done in {took}, {changed or 'nothing'} changed.", C.COLOR_OK)

    def _whom(self, host: str) -> str:
        """A host that failed; of several namespaces, those of which a step did."""
        known = self._worked_on.get(host, {})
        failed = [shown(name, 60) for name, one in known.items() if one]
        if not failed or len(known) == 1:
            return host
        return f"{host} ({len(failed)} of {len(known)} namespaces: {', '.join(failed[:5])}{' …' * (len(failed) > 5)})"

    # --- help -----------------------------------------------------------------------------------------------------
    def _steps(self, host: str, title: str = "") -> bool:
        """Print the steps that were kept for this host since; whether there were any."""
        steps, self._offsets[host] = steps_since(host, self._offsets.get(host, 0))
        for step in steps:
            self._step(host, step, title)
        return bool(steps)

    def _said(self, host: str, told: t.Any, task: t.Any) -> None:
        self._clean_results(told, task.action)
        if "msg" in told:
            self._say(host, told["msg"])
        else:
            self._say(host, [f"{name}: {value}" for name, value in told.items() if not name.startswith("_")])

    def _warn(self, told: t.Any) -> None:
        _live.clear()
        self._handle_warnings(told)


def _printable(text: str) -> str:
    """A terminal obeys what is not printable, and tenants choose names."""
    return "".join(one if one.isprintable() else " " if one.isspace() else "\ufffd" for one in text)


def _ours(task: t.Any) -> bool:
    """A module of the collection, but for those that keep and report steps."""
    return str(task.action).startswith(COLLECTION) and not str(task.action).endswith((".report", ".note_step"))


def _parts(result: t.Any) -> tuple[str, t.Any, t.Any]:
    """Host, task, result; by the names of the ansible-core that runs."""
    task = getattr(result, "task", None) or result._task
    host = getattr(result, "host", None) or result._host
    told = result.result if hasattr(result, "result") else result._result
    return host.get_name(), task, told
