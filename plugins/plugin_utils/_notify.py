# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell people of an event: which channels want it, what each is sent, and who has been told already.

PRIVATE to the collection. Nothing here raises on a channel that is wrong or down: the reason is what comes back.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import threading
import time
import typing as t

from ._notify_send import Refused, mail_place, one_line, post, reach, send_mail, web_place, without_secrets

KINDS = ("webhook", "slack", "pagerduty", "mail")
RESOLVING = ("released", "closed")
#: Event to severity, in PagerDuty's words.
EVENTS = {
    "isolated": "error",
    "escalated": "critical",
    "failed": "error",
    "could-not-verify": "warning",
    "backup-failed": "warning",
    "drill-failed": "warning",
    "released": "info",
    "closed": "info",
}
#: These come with a reason, and another reason is another event.
_WITH_REASON = ("failed", "could-not-verify")
PAGERDUTY = "https://events.pagerduty.com/v2/enqueue"
SECONDS = 10.0  # for all channels together, retries included
LEDGER = "notified.jsonl"
_ALWAYS = ("kind", "name", "when", "template", "ca")
_OPTIONS = {
    "webhook": ("url",),
    "slack": ("url",),
    "pagerduty": ("url", "routing_key"),
    "mail": ("host", "port", "tls", "user", "password", "from", "to"),
}
_NEEDED = {"webhook": ("url",), "slack": ("url",), "pagerduty": ("routing_key",), "mail": ("host", "from", "to")}
_TEMPLATES = {kind: "mail.j2" if kind == "mail" else f"{kind}.json.j2" for kind in KINDS}
_SECRETS = ("url", "routing_key", "password", "user")

Channel = t.Dict[str, t.Any]


def named(channels: t.Any) -> t.List[t.Tuple[str, t.Any]]:
    """Every channel with its name: ``name``, else its kind and its place in the list."""
    listed = channels if isinstance(channels, list) else [channels]
    return [
        (str((c.get("name") or f"{c.get('kind')}-{n}") if isinstance(c, dict) else f"channel-{n}"), c)
        for n, c in enumerate(listed, 1)
    ]


def wrong(channel: t.Any) -> t.Optional[str]:
    """Why a channel cannot be used, or None. Names options, never their values."""
    if not isinstance(channel, dict):
        return "it is no dictionary with kind"
    kind = channel.get("kind")
    if kind not in KINDS:
        return "kind has to be one of " + ", ".join(KINDS)
    missing = [name for name in _NEEDED[kind] if not channel.get(name)]
    if missing:
        return f"a channel of kind {kind} needs " + " and ".join(missing)
    if any(event not in EVENTS for event in wanted(channel)):
        return "when may list " + ", ".join(EVENTS)
    return None


def misspelt(channel: Channel) -> t.Optional[str]:
    """The first option of a channel that is none, and which was meant. It stops no message: only who looks is told."""
    known = (*_ALWAYS, *_OPTIONS[channel["kind"]])
    strange = next((str(name) for name in channel if name not in known), None)
    if strange is not None:
        close = difflib.get_close_matches(strange, known, n=1)
        return f"it has no option {one_line(strange)[:40]}" + (f"; did you mean {close[0]}?" if close else "")
    return None


def unusable(channel: Channel, values: t.Mapping[str, t.Any], templates: str, connect: bool) -> t.Optional[str]:
    """Why a channel that is not ``wrong`` could not be told, or None; nothing is sent.

    ``connect``: its server is asked for a connection, too.
    """
    try:
        message(channel["kind"], _template(channel, templates), values)
        place = mail_place(channel) if channel["kind"] == "mail" else web_place(str(channel.get("url") or PAGERDUTY))
        if connect:
            reach(*place)
    except Refused as exc:
        return without_secrets(str(exc), [channel.get(s) for s in _SECRETS])
    return None


def wanted(channel: Channel) -> t.List[str]:
    """The events that a channel is told of. PagerDuty always learns that an incident is over."""
    given = channel.get("when") or list(EVENTS)
    events = [str(e) for e in (given if isinstance(given, list) else [given])]
    return events + [e for e in RESOLVING if channel.get("kind") == "pagerduty" and e not in events]


def message(kind: str, template: str, values: t.Mapping[str, t.Any]) -> str:
    """A template filled in. Values are text and are never themselves taken for templates. Raises Refused."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["slack"] = _slack
    try:
        with open(template, encoding="utf-8") as stream:
            text = environment.from_string(stream.read()).render(values)
    except (OSError, ValueError) as exc:
        raise Refused(f"its template cannot be read: {getattr(exc, 'strerror', None) or 'it is no UTF-8'}") from exc
    except (TemplateError, TypeError) as exc:
        raise Refused(f"its template cannot be filled in: {exc}") from exc
    if kind != "mail":
        try:
            json.loads(text)
        except ValueError as exc:
            raise Refused("its template does not make JSON") from exc
    return text


def deliver(
    channels: t.Sequence[t.Tuple[str, Channel]], values: t.Mapping[str, t.Any], templates: str, seconds: float = SECONDS
) -> t.Dict[str, t.Optional[str]]:
    """Send to all channels at once. Returns for each its name with None, or with the reason why it was not told."""
    until = time.monotonic() + seconds
    told: t.Dict[str, t.Optional[str]] = {}

    def one(name: str, channel: Channel) -> None:
        try:
            _send(channel, values, templates, until)
            told[name] = None
        except Refused as exc:
            told[name] = str(exc)
        except Exception as exc:  # pylint: disable=broad-except # whatever it is, the runbook goes on
            told[name] = type(exc).__name__
        if told[name]:
            told[name] = without_secrets(str(told[name]), [channel.get(s) for s in _SECRETS])

    threads = [threading.Thread(target=one, args=pair, daemon=True) for pair in channels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    # a thread that is still at it is left alone; it ends with the task
    done = dict(told)
    return {name: done.get(name, f"no answer within {seconds:.0f} s") for name, _channel in channels}


def told_already(folder: str, name: str, event: str, reason: str) -> bool:
    """Whether the ledger of an incident says that a channel has been told. A release begins a new chapter."""
    chapter: t.Set[t.Tuple[str, str]] = set()
    resolving = False
    for line in _ledger(folder):
        if line.get("channel") != name:
            continue
        if (line.get("event") in RESOLVING) != resolving:
            chapter, resolving = set(), not resolving
        chapter.add((str(line.get("event")), str(line.get("reason"))))
    return (event, _digest(event, reason)) in chapter


def note_told(folder: str, names: t.Sequence[str], event: str, reason: str) -> None:
    """Write into the ledger who was told. Raises OSError."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    lines = [{"at": at, "channel": n, "event": event, "reason": _digest(event, reason)} for n in names]
    descriptor = os.open(os.path.join(folder, LEDGER), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    with open(descriptor, "a", encoding="utf-8", errors="replace") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)


def dedup_key(incident: t.Optional[str], cluster: str, namespace: str, event: str) -> str:
    """PagerDuty's name of the trouble: the incident, else what it happens to. At most 255 characters."""
    key = incident or "/".join(part for part in (cluster, namespace, event) if part)
    return key if len(key) <= 255 else hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _template(channel: Channel, templates: str) -> str:
    return os.path.expanduser(str(channel.get("template") or os.path.join(templates, _TEMPLATES[channel["kind"]])))


def _send(channel: Channel, values: t.Mapping[str, t.Any], templates: str, until: float) -> None:
    kind = channel["kind"]
    text = message(kind, _template(channel, templates), values)
    if kind == "mail":
        send_mail(channel, text, until)
        return
    body = text
    if kind == "pagerduty":
        # after the template, so that no template and no error of one ever holds it
        body = json.dumps({**json.loads(text), "routing_key": str(channel["routing_key"])})
    post(str(channel.get("url") or PAGERDUTY), body, channel.get("ca"), until)


def _slack(value: t.Any) -> str:
    """Text in which Slack finds no link and no <!channel>."""
    return str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _digest(event: str, reason: str) -> str:
    return hashlib.sha256(reason.encode("utf-8", "replace")).hexdigest()[:16] if event in _WITH_REASON else ""


def _ledger(folder: str) -> t.Iterator[t.Dict[str, t.Any]]:
    try:
        with open(os.path.join(folder, LEDGER), encoding="utf-8", errors="replace") as stream:
            lines = stream.readlines()
    except OSError:
        return
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found
