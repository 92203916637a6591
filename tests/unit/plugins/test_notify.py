# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Messages reach real servers as they should, and a channel that is wrong or down is named and no more."""

from __future__ import annotations

import email
import email.policy
import pathlib
import socket
import sys
import typing as t

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "support"))
from certificates import Authority
from notify_servers import PASSWORD, USER, mail, web

from ansible_collections.memops.agent_memory.plugins.action import notify as action
from ansible_collections.memops.agent_memory.plugins.plugin_utils import _notify

TEMPLATES = str(pathlib.Path(__file__).resolve().parents[3] / "roles" / "notify" / "templates")
HOSTILE = 'agent-7\r\nBcc: thief@example.com\n<!channel> {{ 7 * 7 }} "}'


def values(event: str = "isolated", **more: t.Any) -> dict[str, t.Any]:
    return {
        "event": event,
        "severity": _notify.EVENTS[event],
        "action": "resolve" if event in _notify.RESOLVING else "trigger",
        "dedup_key": "inc-1",
        "summary": f"Isolated: memory of {HOSTILE}",
        "namespace": HOSTILE,
        "cluster": "memory",
        "incident": "inc-1",
        "host": "memory-1",
        "reason": HOSTILE,
        "impact": [{"owner": "support", "impact": HOSTILE}],
        "at": "2026-01-05T10:15:00Z",
        **more,
    }


def send(channel: dict[str, t.Any], seconds: float = 60.0, **more: t.Any) -> str | None:
    assert _notify.wrong(channel) is None
    return _notify.deliver([("one", channel)], values(**more), TEMPLATES, seconds)["one"]


def letter_to(port: int, **more: t.Any) -> dict[str, t.Any]:
    return {
        "kind": "mail",
        "host": "127.0.0.1",
        "port": port,
        "tls": "none",
        "user": USER,
        "password": PASSWORD,
        "from": "memory@example.com",
        "to": ["sre@example.com"],
        **more,
    }


def test_web_channels_get_what_their_service_takes() -> None:
    with web() as (url, told):
        assert send({"kind": "webhook", "url": url + "/hook"}) is None
        assert send({"kind": "slack", "url": url + "/slack"}) is None
        assert send({"kind": "pagerduty", "url": url + "/pd", "routing_key": "the-key"}) is None
        assert send({"kind": "pagerduty", "url": url + "/pd", "routing_key": "the-key"}, event="closed") is None
    hook, slack, trigger, resolve = [body for _path, body in told]
    assert hook["namespace"] == HOSTILE and hook["event"] == "isolated"
    assert "<!channel>" not in str(slack) and "&lt;!channel&gt;" in slack["text"] and "7 * 7" in slack["text"]
    assert [block["type"] for block in slack["blocks"]] == ["section", "context"]
    assert (trigger["event_action"], trigger["routing_key"], trigger["dedup_key"]) == ("trigger", "the-key", "inc-1")
    assert trigger["payload"]["severity"] == "error" and trigger["payload"]["source"] == "memory-1"
    assert (resolve["event_action"], resolve["dedup_key"]) == ("resolve", "inc-1")


def test_a_hostile_name_makes_no_header_of_a_mail() -> None:
    with mail() as (port, letters):
        assert send(letter_to(port)) is None
    letter = email.message_from_string(letters[0], policy=email.policy.default)
    assert letter["Bcc"] is None and letter["To"] == "sre@example.com"
    assert "Bcc: thief" in str(letter["Subject"])
    assert "Incident: inc-1" in letter.get_content()


def test_a_wrong_password_is_named_and_not_said() -> None:
    with mail() as (port, letters):
        why = send(letter_to(port, password="wrong-password"))
    assert letters == [] and why == "the mail server refused the login (535)"


def test_a_password_does_not_leave_the_machine_without_tls() -> None:
    assert send(letter_to(25, host="mail.invalid")) == "a password is not sent without TLS"
    with mail() as (port, letters):
        why = send(letter_to(port, tls="starttls"))
    assert letters == [] and "STARTTLS" in str(why)


def test_starttls_with_a_certificate_that_is_trusted_and_one_that_is_not(tmp_path: pathlib.Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    with mail(authority.certificate("127.0.0.1")) as (port, letters):
        assert send(letter_to(port, tls="starttls", ca=authority.ca)) is None
        assert len(letters) == 1 and letters[0].startswith("Subject:")
        for more in ({"ca": other.ca}, {}, {"tls": "none"}):
            why = str(send(letter_to(port, **{"tls": "starttls", **more})))
            assert PASSWORD not in why and ("certificate verify failed" in why) == ("tls" not in more), why
    assert len(letters) == 1


def test_what_may_pass_is_tried_again_and_what_may_not_is_not() -> None:
    with web(503) as (url, told):
        assert send({"kind": "webhook", "url": url}) is None
    assert len(told) == 2
    for code in (403, 302):
        with web(code) as (url, told):
            why = send({"kind": "webhook", "url": url + "/secret-path"})
        assert len(told) == 1 and why == f"the server answered {code}"


def test_an_endpoint_that_is_down_or_silent_is_told_within_the_limit() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        down = {"kind": "webhook", "url": f"http://127.0.0.1:{port}/secret-path?token=secret-token"}
        why = send(down)
        assert "refused" in str(why).lower() and "secret" not in str(why)
        silent.listen()
        outcome = _notify.deliver([("hook", down), ("mail", letter_to(port))], values(), TEMPLATES, 0.5)
    assert all(outcome.values()) and "secret" not in str(outcome)


def test_a_template_of_ones_own_and_wrong_ones(tmp_path: pathlib.Path) -> None:
    own = tmp_path / "own.j2"
    with web() as (url, told):
        channel = {"kind": "webhook", "url": url, "template": str(own)}
        assert "template cannot be read" in str(send(channel))
        for text, words in (("{", "does not make JSON"), ("{{ nothing }}", "undefined"), ("{{ ''.x.y }}", "filled in")):
            own.write_text(text)
            assert words in str(send(channel))
        own.write_text('{"mine": {{ incident | tojson }}}')
        assert send(channel) is None
    assert told == [("/", {"mine": "inc-1"})] or told == [("", {"mine": "inc-1"})]


@pytest.mark.parametrize(
    ("channel", "words"),
    [
        ("https://hooks.example.com/secret", "no dictionary"),
        ({"kind": "pager", "url": "secret"}, "kind has to be"),
        ({"kind": "slack"}, "needs url"),
        ({"kind": "mail", "host": "secret"}, "needs from and to"),
        ({"kind": "slack", "url": "secret", "when": ["isolate"]}, "when may list"),
    ],
)
def test_a_wrong_channel_is_explained_without_its_values(channel: t.Any, words: str) -> None:
    why = _notify.wrong(channel)
    assert words in str(why) and "secret" not in str(why)


def test_an_event_of_an_incident_is_told_once_until_a_release(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path)

    def first(event: str, reason: str = "") -> bool:
        if _notify.told_already(folder, "one", event, reason):
            return False
        _notify.note_told(folder, ["one"], event, reason)
        return True

    assert first("isolated") and not first("isolated")
    assert first("failed", "a") and not first("failed", "a") and first("failed", "b")
    assert not _notify.told_already(folder, "two", "isolated", "")
    assert first("released") and not first("released") and first("closed")
    assert first("failed", "a") and first("released")


def test_who_wants_what() -> None:
    assert _notify.wanted({"kind": "pagerduty", "when": "escalated"}) == ["escalated", "released", "closed"]
    assert _notify.wanted({"kind": "slack", "when": ["escalated"]}) == ["escalated"]
    both = _notify.named([{"kind": "mail", "name": "us"}, {"kind": "slack"}])
    assert [name for name, _channel in both] == ["us", "slack-2"]
    assert _notify.dedup_key(None, "memory", "", "backup-failed") == "memory/backup-failed"
    assert len(_notify.dedup_key(None, "memory", "x" * 300, "failed")) <= 255


def looked(*channels: t.Any, connect: bool = True) -> dict[str, str]:
    result = action._looked_at(list(channels), connect)
    assert not result["changed"] and set(result["usable"]).isdisjoint(result["not_delivered"])
    return t.cast("dict[str, str]", result["not_delivered"])


def test_a_channel_that_could_not_be_told_is_met_before_it_matters(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    monkeypatch.setattr(action.display, "warning", warned.append)
    with web() as (url, told), mail() as (port, letters), socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = closed.getsockname()[1]
        good = [{"kind": "webhook", "url": url + "/hook", "name": "hook"}, {**letter_to(port), "name": "owners"}]
        assert looked(*good) == {}
        template = tmp_path / "own.j2"
        template.write_text("{{ nmespace }}")
        found = looked(
            {"kind": "slak", "url": url, "name": "kind"},
            {"kind": "slack", "url": url, "whn": ["failed"], "name": "option"},
            {"kind": "webhook", "url": url, "when": ["fialed"], "name": "event"},
            {"kind": "webhook", "url": "htps://example.com/x", "name": "scheme"},
            {"kind": "webhook", "url": "http:///x", "name": "host"},
            {"kind": "webhook", "url": "http://example.com:port/x", "name": "port"},
            {"kind": "webhook", "url": url, "template": str(template), "name": "template"},
            {"kind": "webhook", "url": f"http://127.0.0.1:{nobody}/secret-path", "name": "down"},
            {**letter_to(port, tls="ssl"), "name": "tls"},
            {**letter_to(70000), "name": "number"},
            *good,
        )
    assert told == [] and letters == [] and warned == []
    assert {name: why.partition(":")[0] for name, why in found.items()} == {
        "kind": "kind has to be one of webhook, slack, pagerduty, mail",
        "option": "it has no option whn; did you mean when?",
        "event": "when may list " + ", ".join(_notify.EVENTS),
        "scheme": "its url is neither http nor https",
        "host": "its url names no host",
        "port": "its url is none",
        "template": "its template cannot be filled in",
        "down": "its server does not answer",
        "tls": "tls has to be one of starttls, implicit, none",
        "number": "its port is no number from 1 to 65535",
    }
    assert looked({"kind": "webhook", "url": f"http://127.0.0.1:{nobody}", "name": "down"}, connect=False) == {}
    assert looked({"kind": "pagerduty", "name": "pager"}, connect=False) and len(warned) == 1
    assert "a channel of kind pagerduty needs routing_key" in warned[0]
