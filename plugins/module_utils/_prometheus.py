# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Ask a Prometheus (or what speaks its HTTP API) for one number, and say why there is none.

PRIVATE to the collection. Standard library only. No redirect is followed: a token goes to the named address alone.
"""
from __future__ import annotations

import base64
import http.client
import json
import math
import ssl
import typing as t
import urllib.parse
from dataclasses import dataclass

from ._deadline import within
from ._errors import InvalidInput

ANSWER: t.Final = 4 << 20  # bytes that are read of an answer
NEXT: t.Final = "correct memory_hit_rate_source"


class NoData(Exception):
    """There is no number, and why."""


@dataclass(frozen=True)
class Prometheus:
    """``url``: its address, with a path where it lies behind a proxy. The login is a token, or user and password."""

    url: str
    token: str | None = None
    user: str | None = None
    password: str | None = None
    ca_bundle: str | None = None
    timeout: float = 10.0

    def __post_init__(self) -> None:
        """Errors: InvalidInput."""
        parts = urllib.parse.urlsplit(self.url)
        try:
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
            usable = usable and (parts.port is None or parts.port > 0) and not (parts.query or parts.fragment)
        except ValueError:
            usable = False
        if not usable:
            raise InvalidInput(
                "The address of Prometheus is no http:// or https:// address without a login.",
                "set url of memory_hit_rate_source to one such as https://prometheus.example.com:9090",
            )
        if self.token and self.user:
            raise InvalidInput("Prometheus takes a token or a user, not both.", NEXT)
        if any(c in (self.token or "") + (self.user or "") + (self.password or "") for c in "\r\n"):
            raise InvalidInput("The login for Prometheus holds a line break.", NEXT)

    def number(self, expression: str, max_age: float) -> tuple[float, float]:
        """(value, when it was sampled in seconds since 1970) of the one series of an instant query. Errors: NoData.

        A selector's sample that is older than ``max_age`` seconds is none: its target is scraped no more.
        """
        value, now, kind = self._one(expression, None)
        if math.isnan(value) or math.isinf(value):
            raise NoData(f"the value is {value}: nothing was counted")
        if kind == "scalar":  # it has no series whose time could be asked for
            return value, now
        sampled = self._one(f"timestamp({expression})", now)[0]
        if now - sampled > max_age:
            raise NoData(f"the newest sample is {now - sampled:.0f} s old, more than {max_age:g} s")
        return value, sampled

    def _one(self, expression: str, at: float | None) -> tuple[float, float, str]:
        """(value, when it was evaluated, type of the result)."""
        form = {"query": expression, "timeout": f"{max(1, int(self.timeout))}s"}
        answer = self._post(form if at is None else {**form, "time": repr(at)})
        try:
            kind, found = str(answer["resultType"]), answer["result"]
            if kind == "scalar":
                return float(found[1]), float(found[0]), kind
            if kind != "vector":
                raise NoData(f"the query gives a {kind}, not one number")
            if len(found) != 1:
                why = "no series" if not found else f"{len(found)} series, and one is needed"
                raise NoData(f"the query finds {why}")
            return float(found[0]["value"][1]), float(found[0]["value"][0]), kind
        except (LookupError, TypeError, ValueError) as exc:
            raise NoData(f"the answer is not Prometheus' ({type(exc).__name__})") from None

    def _post(self, form: t.Mapping[str, str]) -> t.Any:
        parts = urllib.parse.urlsplit(self.url)
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        elif self.user:
            login = base64.b64encode(f"{self.user}:{self.password or ''}".encode()).decode()
            headers["Authorization"] = f"Basic {login}"
        connection: http.client.HTTPConnection | None = None
        try:
            connection = self._connection(parts)
            with within(connection, self.timeout):
                path = parts.path.rstrip("/") + "/api/v1/query"
                connection.request("POST", path, urllib.parse.urlencode(form), headers)
                answer = connection.getresponse()
                body = answer.read(ANSWER)
        except (OSError, http.client.HTTPException) as exc:
            raise NoData(f"{parts.netloc} cannot be asked: {str(exc) or type(exc).__name__:.200}") from None
        finally:
            if connection is not None:
                connection.close()
        return _data(answer.status, body, parts.netloc)

    def _connection(self, parts: urllib.parse.SplitResult) -> http.client.HTTPConnection:
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self.timeout)
        context = ssl.create_default_context(cafile=self.ca_bundle)
        return http.client.HTTPSConnection(host, port, timeout=self.timeout, context=context)


def _data(status: int, body: bytes, where: str) -> t.Any:
    """Errors: NoData."""
    if status in (401, 403):
        raise NoData(f"{where} refuses the login (HTTP {status})")
    if 300 <= status < 400:
        raise NoData(f"{where} leads to another address (HTTP {status}), which is not followed")
    if status == 404:
        raise NoData(f"{where} has no /api/v1/query below that address")
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise NoData(f"{where} answers HTTP {status} and no JSON") from None
    if not isinstance(answer, dict) or answer.get("status") != "success":
        said = str(answer.get("error") or f"HTTP {status}") if isinstance(answer, dict) else f"HTTP {status}"
        raise NoData(f"{where} cannot answer the query: {said:.200}")
    return answer.get("data")


def label(text: str) -> str:
    """A text inside the double quotes of a PromQL matcher."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
