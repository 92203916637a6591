# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading objects of an S3 endpoint by plain signed requests (AWS Signature Version 4), where that is possible.

PRIVATE to the collection. Opening boto3's client takes longer than to read a hundred objects, and each of its requests
five times as long as one of these. Only the plain case is here: an endpoint, a region and keys that are stated, and an
answer that is the object. Whatever else happens, boto3 asks again, and its answer counts.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import os
import re
import ssl
import threading
import time
import typing as t
import urllib.parse
import urllib.request

NOTHING = hashlib.sha256(b"").hexdigest()  # of a request's body


class PlainGets:
    """Safe for threads; after a fork each process makes its own connections."""

    def __init__(self, endpoint: urllib.parse.SplitResult, bucket: str, params: t.Mapping[str, t.Any],
                 timeouts: tuple[float, float]) -> None:  # fmt: skip
        self._tls = ssl.create_default_context(cafile=params["ca_bundle"]) if endpoint.scheme == "https" else None
        self._host, self._port = t.cast(str, endpoint.hostname), endpoint.port
        standard = endpoint.port in (None, 443 if self._tls else 80)
        self._named = endpoint.netloc.rpartition(":")[0] if standard and endpoint.port else endpoint.netloc
        self._bucket, self._region = bucket, str(params["region"])
        self._access, self._secret = str(params["access_key"]), str(params["secret_key"])
        self._token = str(params.get("session_token") or "")
        self._connect_timeout, self._read_timeout = timeouts
        self._signing: tuple[str, bytes] = ("", b"")  # day, key
        self._idle: list[http.client.HTTPConnection] = []
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._failed = False

    @classmethod
    def if_plain(
        cls, bucket: str, params: t.Mapping[str, t.Any], connect_timeout: float, read_timeout: float
    ) -> PlainGets | None:
        """None where boto3 has to find out something: credentials, region, proxies, certificates."""
        try:
            endpoint = urllib.parse.urlsplit(str(params.get("endpoint_url") or ""))
            stated = all(params.get(name) for name in ("access_key", "secret_key", "region"))
            plain = stated and not params.get("profile") and params.get("addressing_style") in (None, "", "path")
            if not plain or not endpoint.hostname or endpoint.path.strip("/") or endpoint.query or endpoint.username:
                return None
            if endpoint.scheme != "http" and not (endpoint.scheme == "https" and params.get("ca_bundle")):
                return None
            proxies = {"http", "https", "all"} & set(urllib.request.getproxies())
            if proxies or not re.match(r"\A[A-Za-z0-9.-]+\Z", bucket):
                return None
            return cls(endpoint, bucket, params, (connect_timeout, read_timeout))
        except (OSError, ValueError):  # a port that is none, certificates that cannot be read: boto3 says it in words
            return None

    def get(self, key: str, start: int, length: int | None) -> bytes | None:
        """What S3Objects.get gives, or None: ask boto3."""
        if self._failed:
            return None
        path = "/" + self._bucket + "/" + urllib.parse.quote(key, safe="/~")
        headers = self._headers(path)
        ranged = bool(start) or length is not None
        if ranged:
            headers["Range"] = f"bytes={start}-" + ("" if length is None else str(start + length - 1))
        connection = self._take()
        while True:
            used = connection is not None
            try:
                connection = connection or self._connect()
                connection.request("GET", path, headers=headers)
                answer = connection.getresponse()
                body = answer.read()
                break
            except (OSError, http.client.HTTPException, ValueError):
                if connection is not None:
                    connection.close()
                connection = None
                if not used:  # one that was idle may have been closed meanwhile; this one is new
                    self._failed = True  # from now on boto3 alone, so that its timeouts and tries are not doubled
                    return None
        if answer.will_close:
            connection.close()
        else:
            self._give_back(connection)
        if answer.status == 206 and ranged and answer.getheader("Content-Range", "").startswith(f"bytes {start}-"):
            return body
        if answer.status == 200:  # some endpoints send all of it
            return body[start:] if length is None else body[start : start + length]
        return None

    def _headers(self, path: str) -> dict[str, str]:
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers = {"host": self._named, "x-amz-content-sha256": NOTHING, "x-amz-date": now}
        if self._token:
            headers["x-amz-security-token"] = self._token
        signed = ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        request = f"GET\n{path}\n\n{lines}\n{signed}\n{NOTHING}"
        scope = f"{now[:8]}/{self._region}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.new(self._key(now[:8]), text.encode(), hashlib.sha256).hexdigest()
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self._access}/{scope}, SignedHeaders={signed}, Signature={signature}"
        )
        return headers

    def _key(self, day: str) -> bytes:
        if self._signing[0] != day:
            key = b"AWS4" + self._secret.encode()
            for part in (day, self._region, "s3", "aws4_request"):
                key = hmac.new(key, part.encode(), hashlib.sha256).digest()
            self._signing = (day, key)
        return self._signing[1]

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._connect_timeout)
        else:
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._connect_timeout, context=self._tls
            )
        connection.connect()
        connection.sock.settimeout(self._read_timeout)
        return connection

    def _take(self) -> http.client.HTTPConnection | None:
        with self._lock:
            if self._pid != os.getpid():  # a connection must not be used on both sides of a fork
                self._pid, self._idle = os.getpid(), []
            return self._idle.pop() if self._idle else None

    def _give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._idle.append(connection)
