# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The failover and failback playbooks on a whole PostgreSQL store with a streaming replica, and what they report."""

from __future__ import annotations

import json
import pathlib
import sys
import typing as t

import jsonschema
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from playbooks import ROOT, Outcome, Site, holding
from tests.support.postgresql_server import PostgresqlServer, Standby

SETTINGS = ("wal_retrieve_retry_interval = 200ms", "wal_keep_size = 64MB")


class Servers:
    """As a bench of stores: each host's own server, with the same store."""

    def __init__(self, primary: PostgresqlServer, secondary: PostgresqlServer) -> None:
        self.of = {"primary": primary, "secondary": secondary}

    def params(self, host: str) -> dict[str, t.Any]:
        return self.of[host].store(server=self.of[host].on_host())

    def application(self, host: str) -> dict[str, t.Any]:
        return self.of[host].application()


@pytest.fixture
def site(tmp_path: pathlib.Path) -> t.Iterator[Site]:
    with PostgresqlServer(*SETTINGS) as primary, Standby(primary, *SETTINGS) as secondary:
        made = Site(tmp_path, bench=Servers(primary, secondary), memory_failover_min_interval="0s")
        for namespace in ("agent-7", "agent-8"):
            made.fill(namespace, 40)
        secondary.wait_for(primary)
        yield made


def done(site: Site, outcome: Outcome, changed: bool) -> None:
    assert outcome.status == 0, outcome.text[-6000:]
    assert (outcome.changed > 0) is changed, outcome.text[-6000:]
    for secret in site.bench.of["primary"].passwords.values():
        assert secret not in outcome.text


def write(site: Site, key: str) -> None:
    """As an application that knows nothing but the route."""
    with Memory(route=str(site.route), keyring=site.keyring, actor="test") as memory:
        memory.write("agent-7", key, {"n": 1}, reason="test")


def reported(site: Site) -> dict[str, t.Any]:
    report = site.report()
    schema = json.loads((ROOT / "plugins" / "plugin_utils" / "report.schema.json").read_text())
    jsonschema.validate(report, schema)
    return report


def test_the_whole_store_fails_over_and_comes_home(site: Site) -> None:
    before = site.fingerprint()
    rehearsed = site.play("failover", "--check")
    done(site, rehearsed, changed=True)
    assert "would be served from" in rehearsed.text
    assert site.fingerprint() == before

    write(site, "at-home")
    first = site.play("failover")
    done(site, first, changed=True)
    report = reported(site)
    told = report["details"]["failover"]
    assert report["verdict"] == "pass" and report["state"] == "failed-over" and report["namespace"] is None
    assert (told["scope"], told["from"], told["to"], told["epoch"]) == ("store", "primary", "secondary", 2)
    assert told["position_before"] <= told["position_after"] and report["records"]["lost"] == 0
    assert "the whole store" in first.text and "Nothing that was acknowledged was lost." in first.text
    page = max(site.reports.glob("*/report.html"), key=lambda path: path.stat().st_mtime_ns).read_text()
    assert "2 namespaces were fenced" in page and "before it took over" in page
    write(site, "away")
    assert {space.state for space in holding(site.stores["primary"])[2]} == {"standby"}
    done(site, site.play("failover"), changed=False)
    again = reported(site)
    fence, former = again["details"]["fence"], report["details"]["fence"]
    assert again["verdict"] == "pass" and fence["writes_refused"] and fence["detail"]
    assert fence["fenced_at"] and fence["fenced_at"] == former["fenced_at"]
    lag = again["details"]["failover"]["lag_seconds"]
    assert lag is not None and lag == told["lag_seconds"]

    # What else is done goes to the server that serves now, though the inventory names the other one.
    done(site, site.play("backup"), changed=True)
    done(site, site.play("isolate", memory_namespace="agent-8"), changed=True)
    assert {space.name: space.state for space in holding(site.stores["secondary"])[2]}["agent-8"] == "quarantined"

    home = site.play("failback", memory_failover_min_interval="10m")
    done(site, home, changed=True)
    report = reported(site)
    assert report["verdict"] == "pass" and report["state"] == "closed" and report["next_command"] == ""
    assert report["details"]["failback"]["lost"] == 0 and report["details"]["failback"]["epoch"] == 3
    states = {space.name: space.state for space in holding(site.stores["primary"])[2]}
    assert states == {"agent-7": "serving", "agent-8": "quarantined"}
    write(site, "home-again")
    with site.memory() as memory:
        assert set(memory.read_many("agent-7", ["at-home", "away", "home-again"])) == {"at-home", "away", "home-again"}
    done(site, site.play("failback"), changed=False)

    # A rebuild can begin with it, and goes on where everything is served then.
    rebuilt = site.play("rebuild", memory_namespace="agent-7", memory_failover_scope="store")
    assert "served from" in rebuilt.text
    report = reported(site)
    assert report["namespace"] == "agent-7" and report["details"]["failover"]["performed"] is False
    assert "the whole store was failed over to this server first" in report["details"]["failover"]["reason"]
    assert {space.state for space in holding(site.stores["primary"])[2]} == {"standby", "quarantined"}
