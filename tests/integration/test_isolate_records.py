# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks isolate and release on single records: check first, then twice."""
from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from playbooks import Outcome, Site


def passed(outcome: Outcome, changed: bool) -> None:
    assert outcome.status == 0, outcome.text
    assert (outcome.changed > 0) is changed, outcome.text


def keys(site: Site) -> set[str]:
    with site.memory() as memory:
        return set(memory.list_keys("agent-7"))


def test_records_go_and_come_back(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path, secondary=False)
    site.fill("agent-7", 20)
    everything = keys(site)
    before = site.fingerprint()
    checked = site.play("isolate", "--check", "--diff", memory_namespace="agent-7", memory_pattern="key-0000?")
    passed(checked, changed=True)
    assert "10 records would go out of service" in checked.text and "key-00003" in checked.text
    unknown = site.play("isolate", "-e", "memory_keys=[key-00001,nobody]", memory_namespace="agent-7")
    assert unknown.status != 0 and "nobody" in unknown.text and "Next: correct memory_keys" in unknown.text
    assert site.fingerprint() == before
    misspelt = site.play("isolate", memory_namespace="agent-7", memory_patern="key-0000?")
    assert misspelt.status != 0 and "memory_pattern" in misspelt.text
    reports = set(site.reports.glob("*"))  # a namespace was to be isolated as a whole, by what was left of that
    # text as a shell passes it, not JSON
    some = ("-e", "memory_namespace=agent-7", "-e", "memory_keys=[key-00001,key-00012]")
    went = site.play("isolate", *some)
    passed(went, changed=True)
    assert "2 records went out of service" in went.text and "State: quarantined" not in went.text
    passed(site.play("isolate", *some), changed=False)
    assert set(site.reports.glob("*")) == reports, "records that go alone are no step of the runbook"
    assert everything - keys(site) == {"key-00001", "key-00012"}
    told = site.play("info")
    assert "2 of them isolated" in told.text
    passed(site.play("release", "--check", memory_namespace="agent-7"), changed=True)
    passed(site.play("release", "-e", "memory_keys=key-00012", memory_namespace="agent-7"), changed=True)
    back = site.play("release", memory_namespace="agent-7")
    passed(back, changed=True)
    assert "records that were out of service are back" in back.text
    passed(site.play("release", memory_namespace="agent-7"), changed=False)
    assert keys(site) == everything
