# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole rebuild of a damaged namespace, step by step, each in a process of its own as the modules are."""

from __future__ import annotations

import secrets
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    apply_step,
    incident,
    isolate,
    plan_step,
    preflight,
    snapshot_step,
    validate_step,
    verify,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.diagnose_step import investigate
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store

from .data import NAMESPACE, Place, damage
from .measure import Ran, Table, run
from .restores import checkpoint
from .snapshots import take

RUN = incident.Run("bench:1:1", "bench", incident="bench-1")


class Rebuild:
    """What every step needs, opened by each step for itself."""

    def __init__(self, place: Place, params: dict[str, t.Any], repository: t.Mapping[str, t.Any]) -> None:
        self.place, self.params, self.at = place, params, dict(repository)

    def _common(self, keyring: bool = True) -> dict[str, t.Any]:
        common: dict[str, t.Any] = {
            "store": open_store(self.params), "store_params": self.params, "namespace": NAMESPACE, "run": RUN,
        }  # fmt: skip
        return {**common, "keyring": Keyring.open(self.place.keyring)} if keyring else common

    def preflight(self) -> t.Any:
        return preflight.preflight(
            **self._common(False), open_keyring=lambda: Keyring.open(self.place.keyring),
            open_repository=lambda: Repository.open(self.at), name="memory",
        )["can_resolve"]  # fmt: skip

    def isolate(self) -> t.Any:
        return isolate.isolate(**self._common(False))["changed"]

    def _publish(self, purpose: str) -> t.Any:
        common = self._common()
        common.pop("namespace")
        found = snapshot_step.publish(
            **common, repository=self.at, name="memory", purpose=purpose, namespaces=[NAMESPACE]
        )
        return {"snapshot": found["snapshot"], "damaged": found["damaged"]}

    def forensic(self) -> t.Any:
        return self._publish("forensic")

    def diagnose(self) -> t.Any:
        found = investigate(**self._common(), repository=Repository.open(self.at), name="memory")
        return {"findings": found["findings"], "strategy": found["strategy"], "records": found["draft"]["records"]}

    def plan(self, strategy: str) -> t.Any:
        return plan_step.decide(
            **self._common(False), open_keyring=lambda: Keyring.open(self.place.keyring),
            open_repository=lambda: Repository.open(self.at), name="memory", strategy=strategy,
        )["records"]  # fmt: skip

    def apply(self) -> t.Any:
        found = apply_step.carry_out(**self._common(), repository=Repository.open(self.at), name="memory")
        return {name: found.get(name) for name in ("method", "applied")}

    def validate(self) -> t.Any:
        found = validate_step.judge(**self._common())
        if found["verdict"] != "pass":
            raise RuntimeError(f"The validation says {found['verdict']}: {found['reasons']}")
        return found["verdict"]

    def release(self) -> t.Any:
        return isolate.release(**self._common(False))["changed"]

    def baseline(self) -> t.Any:
        return self._publish("baseline")

    def verify(self, snapshot: str) -> t.Any:
        return verify.verify(
            repository=Repository.open(self.at), keyring=Keyring.open(self.place.keyring), name="memory",
            snapshot_id=snapshot, depth="hashed",
        )["verdict"]  # fmt: skip


def measure(table: Table, place: Place, repository: t.Mapping[str, t.Any]) -> None:
    """The runbook's steps on one record damaged in a hundred; soft, and then hard, to S3."""
    for strategy in ("soft", "hard"):
        params = place.copy("sealed.db", "live.db")
        at = {**repository, "url": f"{repository['url']}/rebuild-{secrets.token_hex(3)}"}
        take(params, place.keyring, at)
        damaged = damage(params, place.ring(), place.records)
        checkpoint(params["path"])
        work = Rebuild(place, params, at)
        ran: dict[str, Ran] = {}
        for step in (
            "preflight",
            "isolate",
            "forensic",
            "diagnose",
            "plan",
            "apply",
            "validate",
            "release",
            "baseline",
        ):
            ran[step] = run(getattr(work, step), *((strategy,) if step == "plan" else ()))
        ran["verify"] = run(work.verify, ran["baseline"].value["snapshot"])
        steps = ", ".join(f"{step} {one.seconds:.1f} ({one.cpu:.1f})" for step, one in ran.items())
        total = sum(one.seconds for one in ran.values())
        table.add(f"rebuild, {strategy}, {damaged:,} of {place.records:,} damaged", total, 60, "s", detail=steps)
        for step, one in ran.items():
            if one.rss > 80:
                table.memory(f"rebuild, {strategy}, {step}", one)
        print(f"  {ran['diagnose'].value} {ran['apply'].value}", flush=True)
        place.remove("live.db")
