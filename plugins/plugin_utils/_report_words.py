# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a report says things to a person: numbers, times, keys and the sentences of its head.

PRIVATE to the collection.
"""

from __future__ import annotations

import re
import typing as t
import unicodedata

from ansible_collections.memops.agent_memory.plugins.module_utils._words import counted

from . import _report_input as given
from ._report_run import TOLD, lifted_alone, moved_alone

UNKNOWN = "not known"
_NAMED = 5
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
VERDICTS = {"pass": "Pass", "fail": "Fail", "could-not-verify": "Could not verify"}
ORDER = ("preflight", "isolate", "snapshot", "diagnose", "plan", "apply", "validate", "release", "baseline", "monitor")
_PLACES = (*ORDER[:3], "failover", *ORDER[3:6], "undo", ORDER[6], "failback", *ORDER[7:])
#: The playbook that takes one step of the runbook, and what its command needs beside the namespace.
SINGLE = {
    **{name: (name, "") for name in ORDER if name not in ("preflight", "baseline")},
    "baseline": ("snapshot", " -e memory_purpose=baseline"),
}
#: Steps that change no memory, whatever becomes of them.
LOOKING = frozenset(("preflight", "diagnose", "validate"))
STATES = {
    "untouched": "As far as is known, nothing was changed: the namespace serves as before.",
    "quarantined": "The namespace is quarantined: applications can neither read nor write it.",
    "failed-over": "The namespace was failed over and is not home yet; the primary's copy stays fenced.",
    "rebuilt": "The namespace is rebuilt and checked, but not released yet.",
    "released": "The namespace serves again, but nobody has watched it since.",
    "monitoring": "The namespace serves again; watching it has not come to an end.",
    "closed": "The namespace serves again and was watched to the end.",
}


#: The same of a whole store.
WHOLE = {
    "untouched": "The whole store is served as before.",
    "failed-over": "The whole store is served by the replica that took over; the former primary takes no writes.",
    "closed": "The whole store is served at home.",
}


def whole(report: t.Mapping[str, t.Any]) -> bool:
    """Whether the report is about a store that failed over as a whole, and no namespace."""
    return not report["namespace"] and "store" in (report["details"][n]["scope"] for n in ("failover", "failback"))


def subject(report: t.Mapping[str, t.Any]) -> str:
    return "the whole store" if whole(report) else shown(report["namespace"] or "no namespace", 40)


def running(report: t.Mapping[str, t.Any]) -> str:
    """The line above each printed page. It stands in a style sheet, so what could end a string there is replaced."""
    line = f"{title(report)} - {subject(report)} - {report['incident'] or 'no incident id'}"
    return re.sub(r"[^A-Za-z0-9 ._:@/+-]", "_", line)[:120]


def place(name: str) -> int:
    """Where a step stands in the runbook; what is none of its steps comes last."""
    return _PLACES.index(name) if name in _PLACES else len(_PLACES)


def shown(value: t.Any, limit: int = 120) -> str:
    """Text on one line with nothing invisible in it, shortened: keys may hold anything and be a megabyte long."""
    value = str(value)
    out = []
    for char in value[:limit]:
        if char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif unicodedata.category(char)[0] == "C" or char in "\u2028\u2029":
            out.append(f"\\u{{{ord(char):x}}}")
        else:
            out.append(char)
    if len(value) > limit:
        out.append(f"… ({len(value):,} characters)")
    return "".join(out)


def shortened(value: t.Any, limit: int = 160, items: int = 200) -> t.Any:
    """A JSON value with long texts and long lists cut, for the page; the file has it whole."""
    if isinstance(value, str):
        return shown(value, limit)
    if isinstance(value, dict):
        return {shown(k, limit): shortened(v, limit, items) for k, v in value.items()}
    if isinstance(value, list):
        short = [shortened(v, limit, items) for v in value[:items]]
        return short + [f"… ({len(value) - items:,} more)"] if len(value) > items else short
    return value


def amount(value: t.Any) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def percent(value: t.Optional[float], digits: int = 1) -> str:
    """A share; what is more than nothing never reads as 0 %, what is less than all never as 100 %."""
    if value is None:
        return UNKNOWN
    if 0 < value < 0.001:
        return f"{value:.2g}".rstrip() if value < 0.00001 else f"{value:.3%}".replace("%", " %")
    words = f"{value:.{digits}%}"
    if value < 1 and float(words[:-1]) >= 100:
        words = "99.9%"
    return words.replace(".0%", "%").replace("%", " %")


def span(seconds: t.Optional[float]) -> str:
    if seconds is None:
        return UNKNOWN
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    if whole < 172800:
        return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")
    return f"{whole // 86400:,} d" + (f" {whole % 86400 // 3600} h" if whole % 86400 // 3600 else "")


def size(value: t.Optional[int]) -> str:
    if value is None:
        return UNKNOWN
    number, unit = float(value), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def clock(value: t.Any, date: bool = False) -> str:
    found = given.moment(value)
    if found is None:
        return UNKNOWN
    iso = found.replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")
    return iso + " UTC" if date else iso[11:]


def label(name: str) -> str:
    """``told isolated`` for who was told of it."""
    name = "told_" + name[len(TOLD) :] if name.startswith(TOLD) else name
    return shown(name.replace("_", " "), 24)


def refusal(value: t.Optional[bool]) -> str:
    return {True: "refused", False: "not refused", None: "not proven"}[value]


def loss_sentence(report: t.Mapping[str, t.Any]) -> str:
    """The data-loss statement: what is lost, of how much, and whether all of it is listed."""
    records, details = report["records"], report["details"]
    lost, expected = records["lost"], records["expected"]
    if whole(report):
        return _loss_of_store(lost, details)
    if lost is None:
        return "How much was lost is not known: no plan says it."
    if not lost and details["absent"]["count"]:
        return absent_sentence(report)
    if not lost:
        told = f" {_all_of(expected)}" if expected else ""
        return "Nothing was lost." + told
    of = f" of {expected:,} expected" if expected is not None else ""
    share = f" ({percent(details['loss_ratio'])})" if details["loss_ratio"] is not None else ""
    noun = "record" if (lost if expected is None else expected) == 1 else "records"
    verb = "is" if lost == 1 else "are"
    listed = details["lost_listed"]
    names = "Every lost key is listed." if listed >= lost else f"Only {listed:,} of the lost keys are listed."
    older = min(details["lost_older"], lost)
    why = "no good copy was found anywhere"
    if older:
        why = "nobody has a good copy of the newest version, and an older one is in its place"
        why += f" for {older:,} of them" if older < lost else ""
    return f"{lost:,}{of} {noun}{share} {verb} lost: {why}. {names}"


def absent_sentence(report: t.Mapping[str, t.Any]) -> str:
    """What is not there any more and was left away; "" where nothing is."""
    away, expected = report["details"]["absent"], report["records"]["expected"]
    if not away["count"]:
        return ""
    one = away["count"] == 1
    were, they = ("is", "it was") if one else ("are", "they were")
    named = ", ".join(shown(key, 60) for key in away["keys"][:_NAMED]) + (" …" if away["count"] > _NAMED else "")
    others = expected and not report["records"]["lost"]
    return (
        f"{away['count']:,} {'record' if one else 'records'} of the last good snapshot {were} absent and left away, "
        f"since nobody knows whether {they} deleted or lost: {named}."
        + (f" {_all_of(expected)}" if others else "")
    )


def _all_of(expected: int) -> str:
    told = "The one expected record has" if expected == 1 else f"All {expected:,} expected records have"
    return f"{told} a good or a suspect copy."


def kept_sentence(report: t.Mapping[str, t.Any]) -> str:
    """What is other than in the last good snapshot and was kept; "" where nothing is."""
    kept = report["details"]["kept"]
    if not kept["count"]:
        return ""
    named = ", ".join(shown(key, 60) for key in kept["keys"][:_NAMED]) + (" …" if kept["count"] > _NAMED else "")
    what, were = counted(kept["count"], "record is", "records are"), "was" if kept["count"] == 1 else "were"
    return f"{what} other than in the last good snapshot and {were} kept, as nothing says that it is damage: {named}."


def _loss_of_store(lost: t.Optional[int], details: t.Mapping[str, t.Any]) -> str:
    if lost is None:
        forced = details["failover"]["forced"]
        silent = details["failover"]["silent_seconds"]
        age = "" if silent is None else f", whose last change was {span(silent)} old,"
        return (
            f"What the former primary had beyond the replica{age} is told when it rejoins."
            if forced
            else "How much was lost is not known."
        )
    if not lost:
        return "Nothing that was acknowledged was lost."
    kept = details["failback"]["forensic"]
    verb, are = ("write was", "is") if lost == 1 else ("writes were", "are")
    where = f"; the former primary's state is kept in snapshot {shown(kept, 60)}" if kept else ""
    return f"{lost:,} acknowledged {verb} on the former primary alone and {are} lost{where}."


def ran(report: t.Mapping[str, t.Any]) -> t.List[str]:
    """The names of the steps that worked on the memories; who was told of them is none of these."""
    return [step["name"] for step in report["steps"] if not step["name"].startswith(TOLD)]


def moved(report: t.Mapping[str, t.Any]) -> bool:
    """Whether a namespace was only led to its secondary, and perhaps home."""
    return moved_alone(ran(report)) and not whole(report)


def state_known(report: t.Mapping[str, t.Any]) -> bool:
    """Whether the state is more than a guess: a step that failed and named no incident has not seen the namespace."""
    failed = any(step["verdict"] != "pass" for step in report["steps"])
    guessed = report["state"] == "untouched" and report["incident"] is None and failed
    return not guessed or report["details"]["standing"] == "serving"


def state_sentence(report: t.Mapping[str, t.Any]) -> str:
    if not state_known(report):
        refused = " memops.agent_memory.preflight " in report["next_command"]  # before anything was changed
        untouched = refused or {*ran(report)} <= LOOKING  # without an incident these have nothing to change
        did = "This run changed nothing, but what" if untouched else "What was changed and what"
        what = "store" if whole(report) else "namespace"
        return f"{did} state the {what} is in is not known: the playbook memops.agent_memory.info asks the store."
    moved = report["details"]["failover"]
    if whole(report) and report["state"] == "failed-over" and moved["forced"]:
        by = shown(moved["outside_fence"] or "nobody said what", 120)
        return (
            "The whole store is served by the replica that took over. No fence was raised around the former primary; "
            f"what keeps applications from it, as was said: {by}."
        )
    if whole(report):
        return WHOLE.get(report["state"], STATES[report["state"]])
    fence = report["details"]["fence"]
    proven = fence["writes_refused"] and fence["reads_refused"]
    if report["state"] == "quarantined" and not proven and report["details"]["standing"] != "quarantined":
        return "The namespace was fenced, but nothing proves that the fence holds: stop the applications that use it."
    if _nothing_to_release(report):
        return "The namespace serves as before."
    if _released_as_it_was(report):
        return "The namespace serves again, as it was; nothing was rebuilt, and the incident is over."
    if report["state"] == "failed-over" and moved["read_only"]:
        where = shown(moved["to"], 60) if moved["to"] else "the secondary"
        return f"The namespace is served read-only from {where} and is not home yet: nobody writes to it."
    return STATES[report["state"]]


def under_way(report: t.Mapping[str, t.Any]) -> bool:
    """What ran went well, and there are steps of the runbook that did not run: nobody judged the whole."""
    return bool(
        report["verdict"] == given.UNKNOWN
        and report["state"] != "closed"
        and report["details"]["not_run"]
        and report["steps"]
        and all(step["verdict"] == given.PASS for step in report["steps"])
    )


def next_step(report: t.Mapping[str, t.Any]) -> t.Tuple[t.Optional[str], str]:
    """Name and command of the runbook's next step alone; (None, "") when another playbook's turn has come."""
    missing = [name for name in report["details"]["not_run"] if name in SINGLE]
    if _nothing_to_release(report) or _released_as_it_was(report) or _judged_alone(report):
        return None, ""
    last = max((ORDER.index(name) for name in ran(report) if name in ORDER), default=-1)
    name = next((name for name in missing if ORDER.index(name) > last), missing[0] if missing else None)
    whole = " memops.agent_memory.rebuild "
    unfinished = "plan" in ran(report) and not {"apply", "validate"}.issubset(ran(report))
    if name is None or whole not in report["next_command"] or (name in ("baseline", "monitor") and unfinished):
        return None, ""
    playbook, more = SINGLE[name]
    return name, report["next_command"].replace(whole, f" memops.agent_memory.{playbook} ", 1) + more


def _nothing_to_release(report: t.Mapping[str, t.Any]) -> bool:
    return report["state"] == "untouched" and any(step["name"] == "release" for step in report["steps"])


def _judged_alone(report: t.Mapping[str, t.Any]) -> bool:
    """A namespace in which nothing happened was found to be sound."""
    return report["state"] == "untouched" and report["incident"] is None and ran(report) == ["validate"]


def _released_as_it_was(report: t.Mapping[str, t.Any]) -> bool:
    return report["state"] == "released" and lifted_alone(ran(report))


def title(report: t.Mapping[str, t.Any]) -> str:
    """The verdict as the head of a report says it: a run of one step that went well says so of this step."""
    if not under_way(report):
        return VERDICTS[report["verdict"]]
    steps = [step for step in report["steps"] if step["name"] in ran(report)] or report["steps"]
    newest = max(steps, key=lambda step: step["started"] or "")  # RFC 3339 in UTC sorts as text
    return f"{label(newest['name'])} passed".capitalize()


def headline(report: t.Mapping[str, t.Any]) -> str:
    if under_way(report):
        if _judged_alone(report):
            return "No incident is open, and nothing is left to do."
        if report["state"] == "untouched" and ran(report) == ["failback"]:
            return "The namespace is at home, so there was nothing to bring there."
        if _nothing_to_release(report):
            if any(step["changed"] for step in report["steps"]):
                return "The namespace was not quarantined; records that were out of service are back."
            return "The namespace was not quarantined, so there was nothing to release."
        if _released_as_it_was(report):
            return "The quarantine was lifted and nothing was rebuilt: there is nothing left to do."
        if moved(report) and " memops.agent_memory.failback " in report["next_command"]:
            return "Every step passed; failback brings the namespace home, rebuild does where its home is damaged."
        if moved(report) and " memops.agent_memory.release " in report["next_command"]:
            return "Every step passed; the namespace is home, and release lets applications in."
        if " memops.agent_memory.release " in report["next_command"]:
            return "Every step so far passed, and no damage was found."
        name, _command = next_step(report)
        told = f"next in the runbook is {name}" if name else "still to come: " + ", ".join(report["details"]["not_run"])
        return f"Every step so far passed; {told}."
    reasons = report["details"]["reasons"]
    if reasons:
        return shown(reasons[0]["text"], 300)
    lost = report["records"]["lost"]
    if whole(report) and lost != 0:
        return f"Every step passed. {loss_sentence(report)}"
    away = report["details"]["absent"]["count"]
    if away and not lost:
        are = "record is" if away == 1 else "records are"
        return f"Every step passed; {away:,} {are} absent, deleted or lost, and left away."
    return (
        "Every step passed and nothing was lost."
        if not lost
        else "Every step passed; the loss is within its limit and every lost key is listed."
    )
