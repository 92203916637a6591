# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the steps of one incident add up to: the results that count, the state of the namespace, its quarantine.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from . import _report_input as given
from ._report_input import FAIL, PASS, Step

#: Steps that tell people; they matter while the attempt that took them is the newest.
ESCALATION = ("disaster_recovery", "dr", "escalate", "notify")
#: These may rightly be older than the isolation that counts.
_BEFORE_ISOLATION = ("preflight", "failover")
#: What they found or did is about records that an apply or an undo has changed since.
_ABOUT_THE_APPLIED = ("validate", "release", "baseline", "monitor")
#: How a step says that another attempt is at it: it has done nothing.
_TURNED_AWAY = ("lease-held", "stale-attempt")
#: So begin the steps that keep who was told of an event; they say nothing about the memories.
TOLD = "notify_"


def lifted_alone(names: t.Iterable[str]) -> bool:
    """Of the steps of a released namespace, whether none of them was about to rebuild it."""
    return not {"plan", "apply"}.intersection(names)


def moved_alone(names: t.Collection[str]) -> bool:
    """Of the steps of a namespace, whether it was only led to its secondary, and perhaps home, as for maintenance."""
    return "failover" in names and not {"isolate", "diagnose", "plan", "apply"}.intersection(names)


class Run:
    """``history`` is every result in order; ``current`` the newest one of each step (of several hosts: the worst).

    A result from before the last time that the namespace was fenced anew is history: it says nothing about now. So is
    one that judged or released what was applied before an undo or another apply, and an apply that was taken back.
    ``state`` is one of untouched, quarantined, failed-over, rebuilt, released, monitoring, closed.
    ``standing`` is the state that the store told of, where the newest step failed and had asked it.
    ``quarantine`` is a list of {"from", "to"} in RFC 3339, null where no step said when.
    """

    def __init__(self, steps: t.Iterable[t.Any]) -> None:
        self.history: t.List[Step] = [s for s in map(given.step, steps) if s is not None]
        self.current: t.Dict[str, Step] = {}
        self.state = "untouched"
        self.standing: t.Optional[str] = None
        self.failed_over = self.rebuilt = self.validated = False
        self.quarantine: t.List[t.Dict[str, t.Optional[str]]] = []
        self._counted: t.Set[int] = set()
        self._choose()
        for step in self.history:
            if step.result.get("skipped") is not True:
                self._advance(step)

    @property
    def attempts(self) -> t.List[str]:
        return list(dict.fromkeys(s.attempt for s in self.history))

    @property
    def whole(self) -> bool:
        """Whether this is about the whole store, which fails over and comes home; no namespace was worked on."""
        steps = [s for s in self.history if not s.name.startswith(TOLD)]
        moves = all(s.name in ("failover", "failback") for s in steps)
        return bool(steps) and moves and steps[-1].result.get("scope") == "store"

    @property
    def lifted_alone(self) -> bool:
        """Whether there was a quarantine and nothing was rebuilt in it, as after a false alarm."""
        return lifted_alone(self.current)

    @property
    def homecoming(self) -> t.Dict[str, t.Any]:
        """Of a whole store what the failback said that told most of a loss: a repeated one has nothing to tell."""
        came = [step.result for step in reversed(self.history) if step.name == "failback"]
        return max(came, key=lambda said: (said.get("untold") is True, given.count(said.get("lost")) or 0), default={})

    @property
    def unharmed(self) -> bool:
        """Whether it is quarantined, and the diagnosis found nothing that a rebuild would mend, as in a false alarm."""
        if self.state != "quarantined" or not all(step.verdict == PASS for step in self.current.values()):
            return False
        found = self.result("diagnose")
        nothing = found.get("strategy") == "none" and not found.get("findings") and not found.get("causes")
        return nothing and not {"plan", "apply", "validate"}.intersection(self.current)

    @property
    def refusal(self) -> str:
        """What the newest step says comes first, where each was turned down by a precondition; else ""."""
        steps = [s for s in self.history if not s.name.startswith(TOLD)]
        if self.state == "untouched" and steps and all(s.result.get("error") == "cannot-proceed" for s in steps):
            return given.text(steps[-1].result.get("next_step")) or ""
        return ""

    def result(self, name: str) -> t.Dict[str, t.Any]:
        return self.current[name].result if name in self.current else {}

    def passed(self, name: str) -> bool:
        return name in self.current and self.current[name].verdict == PASS

    def timeline(self) -> t.List[t.Dict[str, t.Any]]:
        attempts = self.attempts
        return [
            {
                "name": s.name,
                "attempt": attempts.index(s.attempt) + 1,
                "verdict": s.verdict,
                "started": s.started,
                "seconds": s.seconds,
                "host": s.host,
                "counts": i in self._counted,
            }
            for i, s in enumerate(self.history)
        ]

    def _choose(self) -> None:
        fenced = [i for i, s in enumerate(self.history) if s.name == "isolate" and s.changed]
        boundary = fenced[-1] if fenced else 0
        applied, undone = self._newest_change("apply"), self._newest_change("undo")
        groups: t.Dict[str, t.Dict[str, int]] = {}
        for i, step in enumerate(self.history):
            if i < boundary and step.name not in _BEFORE_ISOLATION:
                continue
            if step.result.get("error") in _TURNED_AWAY and step.attempt != self.history[-1].attempt:
                continue  # a colleague's, who was told to wait
            if step.name in _ABOUT_THE_APPLIED and i < max(applied, undone):
                continue
            if (step.name == "apply" and i < undone) or (step.name == "undo" and i < applied):
                continue
            former = step.attempt != self.history[-1].attempt
            turned_down = step.name == "undo" or (former and step.name in ("release", "validate"))
            if turned_down and step.result.get("error") == "cannot-proceed":
                continue  # refused before anything was changed: the task itself said so
            group = groups.pop(step.name, {})
            if group and self.history[next(reversed(list(group.values())))].attempt != step.attempt:
                group = {}
            group.pop(step.host, None)
            groups[step.name] = {**group, step.host: i}  # popped and set again: the order is that of the newest results
        home = max((i for i, s in enumerate(self.history) if s.name == "release" and s.verdict == PASS), default=-1)
        for name, group in groups.items():
            newest = [self.history[i] for i in group.values()]
            if name == "failback" and max(group.values()) < home and given.merge(newest).verdict != PASS:
                continue  # it was cut short and had come home all the same: a release is given only there
            if name in ESCALATION and self.history[max(group.values())].attempt != self.history[-1].attempt:
                continue  # an earlier attempt told the owners; this one got on without
            self._counted.update(group.values())
            self.current[name] = given.merge([self.history[i] for i in group.values()])

    def _newest_change(self, name: str) -> int:
        """Where in the history this step last changed something; -1 when it never did."""
        return max((i for i, s in enumerate(self.history) if s.name == name and s.changed), default=-1)

    def _advance(self, step: Step) -> None:
        done, result = step.verdict == PASS, step.result
        self.standing = given.text(result.get("standing"))
        if self.standing == "quarantined" and self.state == "untouched":
            self._fence(None)  # by whom, this step does not know
        if step.name == "isolate":
            # "cannot-proceed" is how isolate says that the fence is up but not proven
            up = given.moment(result.get("fenced_at")) is not None or result.get("error") == "cannot-proceed"
            if done or step.changed or up:
                self._fence(result.get("fenced_at"))
                self.rebuilt = self.rebuilt and not step.changed
        elif step.name == "failover":
            self.failed_over = self.failed_over or result.get("performed") is True
            if self.state == "untouched" and given.moment(result.get("fenced_at")) is not None:
                self._fence(result["fenced_at"])  # and perhaps nobody took over
        elif step.name == "apply" and done:
            self.rebuilt, self.validated = True, False
            if self.state == "untouched":
                self.state = "quarantined"  # nothing is applied to a namespace that is not
        elif step.name == "undo" and step.changed:
            self.rebuilt = self.validated = False
            if self.state == "rebuilt":
                self.state = "quarantined"
        elif step.name == "validate" and self.state in ("quarantined", "rebuilt", "failed-over"):
            self.validated = done and self.rebuilt
            self.state = "rebuilt" if self.validated else "quarantined"
        elif step.name == "failback" and done and result.get("scope") == "store":
            self.failed_over, self.state = False, "closed"
        elif step.name == "failback" and done:
            self.failed_over = False
        elif step.name == "release" and done and _nothing_lifted(step):
            pass  # nothing was quarantined
        elif step.name == "release" and done:
            self.state, self.failed_over = "released", False
            if self.quarantine and self.quarantine[-1]["to"] is None:
                self.quarantine[-1]["to"] = given.rfc3339(result.get("released_at"))
        elif step.name == "monitor" and self.state in ("released", "monitoring"):
            if done:
                self.state = "closed"
            elif result.get("verdict") == FAIL or given.sequence(result.get("breaches")):
                if result.get("fenced") is False:
                    self.state = "released"
                else:
                    self._fence(result.get("fenced_at"))
            else:
                self.state = "monitoring"
        if self.failed_over and self.state in ("untouched", "quarantined", "rebuilt", "failed-over"):
            self.state = "failed-over"
        elif self.state == "failed-over":
            self.state = "rebuilt" if self.validated else "quarantined"

    def _fence(self, at: t.Any) -> None:
        if self.state in ("untouched", "released", "monitoring", "closed") or not self.quarantine:
            self.quarantine.append({"from": given.rfc3339(at), "to": None})
        if self.state != "failed-over":
            self.state = "quarantined"
        self.validated = False


def _nothing_lifted(step: Step) -> bool:
    """Of a release: records may have come back, but no quarantine was lifted, now or before."""
    if step.result.get("lifted") is False:
        return given.text(step.result.get("released_at")) is None
    return not step.changed and not given.text(step.result.get("incident"))
