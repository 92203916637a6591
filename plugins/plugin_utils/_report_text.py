# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The short end of a run: step, result, time; what was lost; where the report lies. Plain text, at most 100 columns.

PRIVATE to the collection.
"""

from __future__ import annotations

import textwrap
import typing as t

from . import _report_words as words

WIDTH = 100
_KEYS = 5


def render(
    report: t.Mapping[str, t.Any],
    path: t.Optional[str] = None,
    *,
    width: int = WIDTH,
    steps: bool = True,
    cluster: str = "",
) -> str:
    """Lines without a trailing newline. Commands and paths are never broken, so that they can be copied.

    Without ``steps`` it leaves out what somebody has read who saw each step and its error as it happened. ``cluster``:
    whose namespace it is, where the inventory has several.
    """
    width = min(WIDTH, max(width, 40))
    details = report["details"]
    namespace = words.subject(report) + (f" in {words.shown(cluster, 40)}" if cluster else "")
    incident = f"incident {words.shown(report['incident'] or words.UNKNOWN, 40)}"
    if not report["incident"] and report["state"] == "untouched" and words.state_known(report):
        incident = "no incident"
    lines = _wrap(f"{words.title(report).upper()}  {namespace}  {incident}", width)
    lines.append("")
    if steps:
        lines += _table(report)
    if details["not_run"] and report["next_command"]:  # where nothing is left to do nobody waits for them
        lines += _wrap("not run: " + ", ".join(details["not_run"]), width)
    if steps:
        lines.append("")
    # a run without a plan, or one that was stopped before it changed anything, was not about loss
    about_loss = not (words.under_way(report) or report["state"] == "untouched" or words.moved(report))
    if report["records"]["lost"] is not None or about_loss:
        lines += _wrap(words.loss_sentence(report), width)
    away = details["absent"]
    if away["count"] and report["records"]["lost"]:
        lines += _wrap(words.absent_sentence(report), width)
    if away["command"]:
        lines.append(_command("Back: ", away["command"]))
    kept = details["kept"]
    if kept["count"]:
        lines += _wrap(words.kept_sentence(report), width)
    if kept["command"]:
        lines.append(_command("As it was: ", kept["command"]))
    if words.whole(report):
        lines += [_wrap(line, width)[0] for line in _positions(details)]
    for key in report["lost_keys"][:_KEYS]:
        lines.append("  " + words.shown(key, 60)[: width - 2])
    if (report["records"]["lost"] or 0) > _KEYS:
        lines.append("  … all of them in lost_keys.jsonl")
    going = words.under_way(report)
    if going:
        lines += _wrap(words.headline(report), width)
    standing = words.state_sentence(report)
    read = [] if steps else [words.shown(step["detail"], 300) for step in report["steps"] if step["detail"]]
    # what was not run stands under the table
    for reason in [r for r in details["reasons"] if not r["text"].startswith("Not run: ")][:5]:
        text = words.shown(reason["text"], 300)
        if not any(one in text or text in one for one in read) and text.partition(":")[0] not in standing:
            lines += _wrap(f"{reason['verdict']}: {text}", width)
    state = report["state"] if words.state_known(report) else words.UNKNOWN
    lines += _wrap(f"State: {state}. {standing}", width)
    if details["advice"] and not any(words.shown(details["advice"], 300) in one for one in read):
        lines += _wrap("Do: " + words.shown(details["advice"], 300), width)
    name, alone = words.next_step(report) if going else (None, "")
    if alone:
        lines.append(_command(f"Only {name}: ", alone))
    if report["next_command"]:
        lines.append(_command("Next: ", report["next_command"]))
    if path:
        lines.append("Report: " + path)
    return "\n".join(lines)


def _table(report: t.Mapping[str, t.Any]) -> t.List[str]:
    lines = [f"{'step':<14} {'result':<17} {'time':>9}  what happened"]
    for step in report["steps"]:
        said = words.shown(step["detail"], 400)
        room = WIDTH - 44
        said = said if len(said) <= room else said[: room - 1] + "…"
        mark = "*" if step["changed"] else " "
        lines.append(
            f"{words.label(step['name'])[:14]:<14} {step['verdict']:<16}{mark} "
            f"{words.span(step['seconds']):>9}  {said}".rstrip()
        )
    if any(step["changed"] for step in report["steps"]):
        lines.append(f"{'':<31}* changed something")
    return lines


def _positions(details: t.Mapping[str, t.Any]) -> t.List[str]:
    """Where the stream of changes stood when servers were changed."""
    told = []
    for name in ("failover", "failback"):
        part = details[name]
        if part["scope"] == "store" and part["position_after"] is not None:
            before = words.amount(part["position_before"])
            epoch = words.amount(part["epoch"])
            told.append(f"{name}: position {before} before, {part['position_after']:,} after, epoch {epoch}")
    return told


def _command(lead: str, command: str) -> str:
    line = lead + command
    return line if len(line) <= WIDTH else line.replace(" -e ", " \\\n  -e ", 1)  # as a shell takes it


def _wrap(sentence: str, width: int) -> t.List[str]:
    return textwrap.wrap(sentence, width, subsequent_indent="  ") or [""]
