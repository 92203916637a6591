# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The object of docs/python_memory.md keeps every rule, and comes back from what was done to it."""

from __future__ import annotations

import re

from ansible_collections.memops.agent_memory.plugins.module_utils import conformance
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.unit.objects.objects_help import ROOT, ObjectSite, written
from tests.unit.operations.runbook import NS, STEPS, attempt

PAGE = ROOT / "docs" / "python_memory.md"


def test_the_worked_example_keeps_every_rule_and_is_rebuilt(tmp_path, monkeypatch):
    found = re.search(r"<!-- tested: begin -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    written(tmp_path, found[1], "example")
    notes = {"path": str(tmp_path / "notes.json")}
    said = conformance.check("example:Notes", notes, {"operator": True}, python_path=[str(tmp_path)])
    assert {one.verdict for one in said} == {"pass", "not-asked"}, said
    assert {one.method for one in said if one.verdict == "not-asked"} == {"rotate_keys", "set_ttl"}
    site = ObjectSite(tmp_path, "example:Notes", arguments=notes)
    monkeypatch.syspath_prepend(str(tmp_path))
    import example

    app = example.Notes(**notes)
    for number in range(5):
        app.write(NS, f"note {number}", {"n": number})
    site.backup()
    started = now_us()
    app.write(NS, "note 1", "wrong")
    app.delete(NS, "note 2", soft=False)
    run = attempt()
    for name in STEPS:
        done = site.step(name, run, **({"window": Window(onset=started)} if name == "diagnose" else {}))
        if name == "isolate":
            assert done["proof"]["reads_refused"] and done["proof"]["writes_refused"]
    assert {key: app.read(NS, key) for key in app.list_keys(NS)} == {f"note {n}": {"n": n} for n in range(5)}
