# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo prints: each step in one line with its time, and the table at the end."""
from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import typing as t

from . import check, places


class Show:
    """Lines of the demo stand out from Ansible's by their left margin and, on a terminal, by colour."""

    def __init__(self, out: t.TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._begun = time.monotonic()
        self._colour = self._out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        if hasattr(self._out, "reconfigure"):
            self._out.reconfigure(errors="replace")
        self.steps: list[tuple[str, float, bool]] = []

    def line(self, text: str = "") -> None:
        with contextlib.suppress(BrokenPipeError):
            print(text, file=self._out, flush=True)

    def say(self, text: str) -> None:
        self.line(f"         {text}")

    def elapsed(self) -> float:
        return time.monotonic() - self._begun

    @contextlib.contextmanager
    def step(self, text: str) -> t.Iterator[None]:
        """Announce a step, and keep how long it took."""
        begun, done = time.monotonic(), False
        head = f"{self.elapsed():6.1f} s {len(self.steps) + 1}. {text}"
        self.line(f"\033[1;36m{head}\033[0m" if self._colour else head)
        try:
            yield
            done = True
        finally:
            self.steps.append((text, time.monotonic() - begun, done))


def why_not(show: Show) -> None:
    """After a playbook that failed: what the incident's report holds against it, when there is one."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        folder = check.newest_report()
        with open(os.path.join(folder, "report.json"), encoding="utf-8") as file:
            report = json.load(file)
        for reason in report["details"]["reasons"]:
            show.say(f"{reason['verdict']}: {reason['text']}")
        show.say(f"The namespace is {report['state']}. Report: {os.path.join(folder, 'report.html')}")
        if report["next_command"]:
            show.say(f"Next: {report['next_command']}")


def final_table(show: Show) -> None:
    """The demo's steps, the runbook's steps as the report has them, what was lost, and where the report lies."""
    show.line()
    for text, seconds, done in show.steps:
        show.line(f"  {'✓' if done else '✗'} {text:<100.100} {seconds:6.1f} s")
    show.line(f"    {'in all':<100} {show.elapsed():6.1f} s")
    try:
        folder = check.newest_report()
        with open(os.path.join(folder, "report.json"), encoding="utf-8") as file:
            report = json.load(file)
    except (OSError, ValueError):
        show.line(f"  There is no report in {places.REPORTS}.")
        return
    show.line()
    show.line(f"  {'step of the runbook':<22} {'verdict':<18} {'changed':<8} {'seconds':>8}")
    for one in report["steps"]:
        changed = "yes" if one["changed"] else ""
        show.line(f"  {one['name']:<22} {one['verdict']:<18} {changed:<8} {one['seconds'] or 0:>8.1f}")
    records = report["records"]
    show.line()
    words = ("expected", "damaged", "recovered", "suspect", "conflicted", "lost")
    show.line("  Records: " + ", ".join(f"{records[name]:,} {name}" for name in words if records[name] is not None))
    if report["lost_keys"]:
        show.line(f"  Lost: {', '.join(report['lost_keys'])}")
    show.line(f"  Verdict: {report['verdict']}. Report: {os.path.join(folder, 'report.html')}")
