# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hand one message to a web server or a mail server, with a few tries in a short time.

PRIVATE to the collection.
"""

from __future__ import annotations

import email.message
import email.policy
import email.utils
import http.client
import smtplib
import socket
import ssl
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request

TRIES = 3
PAUSE = 0.5  # seconds before the second try; twice that before the third
TRY_SECONDS = 3.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Refused(Exception):
    """A message was not taken. Its text is the reason, for people."""


class _Again(Refused):
    """It may be taken later."""


def post(url: str, body: str, ca: t.Any, until: float) -> None:
    """Post JSON. Raises Refused, also for a redirection: a message goes where the operator said and nowhere else."""
    from ansible.module_utils.urls import open_url

    web_place(url)

    def once(seconds: float) -> None:
        try:
            open_url(
                url,
                data=body.encode("utf-8", "replace"),
                headers={"Content-Type": "application/json"},
                method="POST",
                timeout=seconds,
                follow_redirects="none",
                ca_path=str(ca) if ca else None,
                http_agent="memops.agent_memory",
            ).close()
        except urllib.error.HTTPError as exc:
            again = exc.code == 429 or exc.code >= 500
            raise (_Again if again else Refused)(f"the server answered {exc.code}") from exc
        except urllib.error.URLError as exc:
            raise _Again(str(exc.reason)) from exc
        except (OSError, http.client.HTTPException) as exc:
            raise _Again(str(exc) or type(exc).__name__) from exc

    _tried(once, until)


def web_place(url: str) -> t.Tuple[str, int]:
    """Host and port of an address, or of the proxy that the environment names for it. Raises Refused."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        raise Refused("its url is none") from None
    if parts.scheme not in ("http", "https"):
        raise Refused("its url is neither http nor https")
    if not parts.hostname:
        raise Refused("its url names no host")
    proxies = {} if urllib.request.proxy_bypass(parts.hostname) else urllib.request.getproxies()
    proxy = urllib.parse.urlsplit(proxies.get(parts.scheme, ""))
    if proxy.hostname:
        return proxy.hostname, proxy.port or 80
    return parts.hostname, port or {"http": 80, "https": 443}[parts.scheme]


def mail_place(channel: t.Mapping[str, t.Any]) -> t.Tuple[str, int]:
    """Host and port of a mail server. Raises Refused for what cannot be used."""
    host, tls = str(channel["host"]), str(channel.get("tls") or "starttls")
    if tls not in ("starttls", "implicit", "none"):
        raise Refused("tls has to be one of starttls, implicit, none")
    if tls == "none" and channel.get("user") and host not in _LOOPBACK:
        raise Refused("a password is not sent without TLS")
    try:
        port = int(channel.get("port") or {"starttls": 587, "implicit": 465, "none": 25}[tls])
    except (TypeError, ValueError):
        raise Refused("its port is no number") from None
    if not 0 < port < 65536:
        raise Refused("its port is no number from 1 to 65535")
    return host, port


def reach(host: str, port: int, seconds: float = TRY_SECONDS) -> None:
    """Whether somebody takes a connection there; nothing is sent. Raises Refused."""
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except (OSError, UnicodeError) as exc:
        why = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
        raise Refused(f"its server does not answer: {why}") from exc


def send_mail(channel: t.Mapping[str, t.Any], text: str, until: float) -> None:
    """Send a message whose first line is its subject, after ``Subject:``. Raises Refused."""
    letter = _letter(channel, text)
    host, port = mail_place(channel)
    tls = str(channel.get("tls") or "starttls")
    try:
        context = ssl.create_default_context(cafile=str(channel["ca"]) if channel.get("ca") else None)
    except (OSError, TypeError, ValueError) as exc:
        raise Refused("its ca cannot be used") from exc

    def once(seconds: float) -> None:
        try:
            server = (
                smtplib.SMTP_SSL(host, port, timeout=seconds, context=context)
                if tls == "implicit"
                else smtplib.SMTP(host, port, timeout=seconds)
            )
            with server:
                if tls == "starttls":
                    server.starttls(context=context)
                if channel.get("user"):
                    server.login(str(channel["user"]), str(channel.get("password") or ""))
                left_out = server.send_message(letter)
        except smtplib.SMTPAuthenticationError as exc:
            raise Refused(f"the mail server refused the login ({exc.smtp_code})") from exc
        except smtplib.SMTPRecipientsRefused as exc:
            raise Refused("the mail server refused every recipient") from exc
        except smtplib.SMTPResponseException as exc:
            again = 400 <= exc.smtp_code < 500
            raise (_Again if again else Refused)(f"the mail server answered {exc.smtp_code}") from exc
        except (smtplib.SMTPNotSupportedError, ssl.SSLError, ValueError) as exc:
            raise Refused(f"the mail server cannot be used: {exc}") from exc
        except (OSError, smtplib.SMTPException) as exc:
            raise _Again(str(exc) or type(exc).__name__) from exc
        if left_out:
            raise Refused(f"the mail server refused {len(left_out)} of the recipients")

    _tried(once, until)


def without_secrets(text: str, secrets: t.Iterable[t.Any]) -> str:
    """A reason on one line, at most 200 characters, in which no secret stands."""
    for secret in sorted((str(s) for s in secrets if s), key=len, reverse=True):
        parts = urllib.parse.urlsplit(secret) if "://" in secret else None
        for word in (secret, parts.path if parts else "", parts.query if parts else ""):
            text = text.replace(word, "***") if len(word) > 1 else text
    return one_line(text)[:200]


def one_line(text: t.Any) -> str:
    """Text without line breaks and control characters, so that it can be a header."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def _letter(channel: t.Mapping[str, t.Any], text: str) -> email.message.EmailMessage:
    first, _end, rest = text.partition("\n")
    subject = first[len("Subject:") :] if first.lower().startswith("subject:") else first
    to = channel["to"] if isinstance(channel["to"], list) else [channel["to"]]
    letter = email.message.EmailMessage(policy=email.policy.SMTP)
    try:
        letter["Subject"] = one_line(subject)[:200]
        letter["From"] = str(channel["from"])
        letter["To"] = ", ".join(map(str, to))
        letter["Date"] = email.utils.localtime()
        letter["Message-ID"] = email.utils.make_msgid(domain="memops.invalid")
        letter["Auto-Submitted"] = "auto-generated"
    except (ValueError, IndexError) as exc:
        raise Refused("from or to is no mail address") from exc
    letter.set_content(rest.lstrip("\n").encode("utf-8", "replace").decode("utf-8"))
    return letter


def _tried(once: t.Callable[[float], None], until: float) -> None:
    for number in range(1, TRIES + 1):
        left = until - time.monotonic()
        try:
            once(max(0.1, min(TRY_SECONDS, left)))
            return
        except _Again as exc:
            pause = PAUSE * number
            if number == TRIES or until - time.monotonic() <= pause:
                raise Refused(f"{exc} ({number} tries)") from exc
        time.sleep(pause)
