# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An isolation tells its channels once, says who could not be told, and shows no secret."""

from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from notify_servers import PASSWORD, USER, mail, web

from playbooks import Site


def test_an_isolation_is_told_once_and_a_channel_that_is_down_stops_nothing(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path, secondary=False)
    site.fill("agent-7", 5)
    with web() as (url, told), mail() as (port, letters):
        letter = {"kind": "mail", "host": "127.0.0.1", "port": port, "tls": "none", "user": USER, "password": PASSWORD}
        channels = [
            {"kind": "slack", "url": url + "/secret-path"},
            {"kind": "pagerduty", "url": url + "/pd", "routing_key": "secret-key"},
            {**letter, "from": "memory@example.com", "to": "sre@example.com"},
            {"kind": "webhook", "name": "down", "url": "http://127.0.0.1:9/secret-path"},
        ]
        checked = site.play("isolate", "--check", memory_namespace="agent-7", memory_notify=channels)
        assert checked.status == 0, checked.text
        assert "would tell slack-1, pagerduty-2, mail-3, down" in checked.text
        assert (told, letters) == ([], [])
        first = site.play("isolate", "-vvv", memory_namespace="agent-7", memory_notify=channels)
        again = site.play("isolate", memory_namespace="agent-7", memory_notify=channels)
    for outcome in (first, again):
        assert outcome.status == 0, outcome.text
        assert "not delivered to down: " in outcome.text
    assert "told slack-1, pagerduty-2, mail-3" in first.text
    assert "told slack-1" not in again.text
    assert [path for path, _body in told].count("/secret-path") == 1
    page = next(body for path, body in told if path == "/pd")
    assert len(told) == 2 and len(letters) == 1
    assert page["dedup_key"] == site.report()["incident"]
    said = next(step["detail"] for step in site.report()["steps"] if step["name"] == "notify_isolated")
    assert "not delivered to down" in said
    kept = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and "report" in str(p)).decode()
    for secret in ("secret-path", "secret-key", PASSWORD):
        assert secret not in kept
        assert secret not in checked.text + first.text + again.text
