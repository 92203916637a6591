# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens is told to its channels once, who could not be told is said, and no secret is shown."""

from __future__ import annotations

import email
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from certificates import Authority
from notify_servers import PASSWORD, USER, mail, web

from playbooks import Site

OURS = "memops.agent_memory."


def test_an_isolation_is_told_once_and_a_channel_that_is_down_stops_nothing(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path, secondary=False)
    site.fill("agent-7", 5)
    authority = Authority(tmp_path)
    with web() as (url, told), mail(authority.certificate("127.0.0.1")) as (port, letters):
        letter = {"kind": "mail", "host": "127.0.0.1", "port": port, "ca": authority.ca}
        letter.update({"user": USER, "password": PASSWORD, "when": ["isolated", "could-not-verify", "drill-failed"]})
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
        assert (len(told), len(letters)) == (2, 1)
        again = site.play("isolate", OURS + "validate", memory_namespace="agent-7", memory_notify=channels)
        drilled = site.play("drill", memory_notify=channels)
    assert first.status == 0 and again.status != 0 and drilled.status != 0, again.text + drilled.text
    for outcome in (first, again, drilled):
        assert "not delivered to down: " in outcome.text
    assert "told slack-1, pagerduty-2, mail-3" in first.text
    pages = [body for path, body in told if path == "/pd"]
    incident = site.report()["incident"]
    assert {page["event_action"] for page in pages} == {"trigger"}
    assert [page["dedup_key"] for page in pages] == [incident, incident, "site/drill-failed"]
    assert [path for path, _body in told].count("/secret-path") == 3 and len(told) == 6
    subjects = [email.message_from_string(letter)["Subject"].strip().partition(":")[0] for letter in letters]
    assert subjects == ["Isolated", "Could not verify", "Drill failed"]
    said = next(step["detail"] for step in site.report()["steps"] if step["name"] == "notify_isolated")
    assert "not delivered to down" in said
    kept = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and "report" in str(p)).decode()
    for secret in ("secret-path", "secret-key", PASSWORD):
        assert secret not in kept
        assert secret not in checked.text + first.text + again.text + drilled.text
