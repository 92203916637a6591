# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Objects in an S3 bucket, through boto3.

PRIVATE to the collection. Every error of the network, of the endpoint and of boto becomes one sentence.
"""
from __future__ import annotations

import base64
import email.utils
import hashlib
import os
import threading
import typing as t

from .._errors import InvalidInput, MemoryOpsError, RepositoryUnavailable
from .objects import ObjectExists, ObjectInfo, ObjectLocked, ObjectMissing
from .s3_lock import open_locks

SMALL = 64 << 10  # the signature of a smaller object hashes it once more
MISSING = ("NoSuchKey", "404", "NotFound", "ObjectLockConfigurationNotFoundError")
ASKING = ("get_object", "head_object", "get_object_lock_configuration")
NEXT = "check url, endpoint_url, region, credentials and network of memory_repository, then run the same command again"


class S3Objects:
    """An ObjectStore (see objects.py). Parameters: those of ``memory_repository``."""

    kind = "s3"

    def __init__(self, bucket: str, prefix: str, params: t.Mapping[str, t.Any]) -> None:
        self._bucket = bucket
        self._prefix = prefix + "/" if prefix else ""
        self._params = dict(params)
        self._clients: dict[int, t.Any] = {}  # by process: a connection must not be used on both sides of a fork
        self._session: t.Any = None  # shared across forks: it has read boto's service descriptions, and has no socket
        self._lock = threading.Lock()
        self.location = f"s3://{bucket}/{prefix}".rstrip("/")
        self._number("connect_timeout", 5)
        self._number("read_timeout", 30)
        self._number("retries", 3)
        self.locks = open_locks(self, params)

    def full(self, key: str) -> str:
        """The key as the bucket knows it."""
        return self._prefix + key

    def _number(self, name: str, default: int) -> float:
        value = self._params.get(name)
        try:
            number = float(default if value is None or value == "" else value)
        except (TypeError, ValueError):
            number = -1.0
        if not 0 < number <= 600:
            raise InvalidInput(
                f"memory_repository.{name} is {value!r}.", "give a number above 0 and not above 600 (seconds, tries)"
            )
        return number

    def _client(self) -> t.Any:
        with self._lock:
            pid = os.getpid()
            if pid not in self._clients:
                self._clients = {pid: self._connect()}
            return self._clients[pid]

    def _connect(self) -> t.Any:
        try:
            from boto3.session import Session
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ImportError:
            raise MemoryOpsError("The Python package boto3 is missing.", "pip install boto3") from None
        params = self._params
        endpoint = params.get("endpoint_url") or None
        verify: t.Any = params.get("ca_bundle") or None
        if endpoint and str(endpoint).startswith("http://"):
            verify = False  # no TLS at all; without this a stale AWS_CA_BUNDLE breaks plain http
        try:
            session = self._session = self._session or Session(
                aws_access_key_id=params.get("access_key") or None,
                aws_secret_access_key=params.get("secret_key") or None,
                aws_session_token=params.get("session_token") or None,
                profile_name=params.get("profile") or None,
                region_name=params.get("region") or None,
            )
            client = session.client(
                "s3",
                endpoint_url=endpoint,
                region_name=params.get("region") or session.region_name or "us-east-1",
                verify=verify,
                config=Config(
                    connect_timeout=self._number("connect_timeout", 5),
                    read_timeout=self._number("read_timeout", 30),
                    retries={"mode": "standard", "total_max_attempts": int(self._number("retries", 3))},
                    s3={"addressing_style": params.get("addressing_style") or ("path" if endpoint else "auto")},
                    # other vendors' endpoints refuse the newer default trailers; we send SHA-256 ourselves
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    max_pool_connections=16,
                ),
            )
            _sign_known_hashes(client)
            return client
        except (BotoCoreError, ValueError, OSError) as exc:
            raise RepositoryUnavailable(f"There is no client for {self.location}: {_sentence(exc)}.", NEXT) from None

    def call(self, action: str, key: str, operation: str, **arguments: t.Any) -> t.Any:
        """One request; nothing of boto leaks.

        Errors: ObjectMissing, ObjectExists, ObjectLocked, RepositoryUnavailable.
        """
        client = self._client()
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

        try:
            answer = getattr(client, operation)(Bucket=self._bucket, **arguments)
            if operation == "get_object":
                return answer, answer["Body"].read()
            return answer
        except ClientError as exc:
            error = exc.response.get("Error", {})
            code = str(error.get("Code", ""))
            status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if code in MISSING and operation in ASKING:
                raise ObjectMissing(
                    f"The repository {self.location} has no {key}.", "list the snapshots, or verify this one"
                ) from None
            if status in (409, 412) and "IfNoneMatch" in arguments:
                raise ObjectExists(
                    f"The repository {self.location} already has another {key}.", "look who else writes there"
                ) from None
            if status == 403 and "VersionId" in arguments and operation == "delete_object":
                raise ObjectLocked(
                    f"The repository {self.location} may not delete a version of {key}.", "wait until its lock is over"
                ) from None
            reason = str(error.get("Message") or "").strip().rstrip(".") or "no reason given"
            raise RepositoryUnavailable(
                f"The repository {self.location} cannot {action} {key}: {code or status} ({reason[:200]}).", NEXT
            ) from None
        except (BotoCoreError, Boto3Error, HTTPClientError, OSError, ValueError) as exc:
            raise RepositoryUnavailable(
                f"The repository {self.location} cannot {action} {key}: {_sentence(exc)}.", NEXT
            ) from None
        except Exception as exc:  # what the HTTP library below boto lets through while a body is read
            if type(exc).__module__.split(".", 1)[0] not in ("urllib3", "http", "botocore", "xml"):
                raise
            raise RepositoryUnavailable(
                f"The repository {self.location} cannot {action} {key}: {_sentence(exc)}.", NEXT
            ) from None

    def put(self, key: str, data: bytes, *, if_absent: bool = False, sha256: bytes | None = None) -> None:
        arguments: dict[str, t.Any] = {"IfNoneMatch": "*"} if if_absent else {}
        if self.locks is not None:
            arguments.update(self.locks.arguments(key))
        data = bytes(data)
        try:
            self.call(
                "write",
                key,
                "put_object",
                Key=self._prefix + key,
                Body=data,
                ChecksumSHA256=base64.b64encode(sha256 or hashlib.sha256(data).digest()).decode(),
                **arguments,
            )
        except ObjectExists:
            # a retry after a lost answer meets its own object
            if self.get(key) != data:
                raise

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            return b""
        arguments: dict[str, t.Any] = {}
        if start or length is not None:
            arguments["Range"] = f"bytes={start}-" + ("" if length is None else str(start + length - 1))
        answer, body = self.call("read", key, "get_object", Key=self._prefix + key, **arguments)
        if arguments and "ContentRange" not in answer:  # some endpoints send all of it
            body = body[start:] if length is None else body[start : start + length]
        return bytes(body)

    def _pages(self, prefix: str, **arguments: t.Any) -> t.Iterator[t.Any]:
        token: dict[str, t.Any] = {}
        while True:
            page = self.call("list", prefix, "list_objects_v2", Prefix=self._prefix + prefix, **arguments, **token)
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def list(self, prefix: str) -> t.Iterator[ObjectInfo]:
        for page in self._pages(prefix):
            for item in page.get("Contents", ()):
                yield ObjectInfo(item["Key"][len(self._prefix) :], item["Size"], item["LastModified"].timestamp())

    def children(self, prefix: str) -> t.List[str]:
        names: set[str] = set()
        skip = len(self._prefix) + len(prefix)
        for page in self._pages(prefix, Delimiter="/"):
            names.update(item["Prefix"][skip:].rstrip("/") for item in page.get("CommonPrefixes", ()))
            names.update(item["Key"][skip:] for item in page.get("Contents", ()))
        return sorted(name for name in names if name)

    def delete(self, keys: t.Sequence[str]) -> None:
        for key in keys:
            if self.locks is not None:
                self.locks.delete(key)
            else:
                self.call("delete", key, "delete_object", Key=self._prefix + key)

    def purge(self, prefix: str, last: str) -> int:
        if self.locks is not None:
            return self.locks.purge(prefix, last)
        self.delete(sorted(info.key for info in self.list(prefix) if info.key != last))
        self.delete([last])
        return 0

    def sweep(self, prefix: str, before: float) -> None:
        pass  # a put is one request: it arrives whole or not at all

    def clock(self) -> t.Optional[float]:
        page = self.call("list", "", "list_objects_v2", Prefix=self._prefix, MaxKeys=1)
        said = page["ResponseMetadata"]["HTTPHeaders"].get("date")
        try:
            return email.utils.parsedate_to_datetime(said).timestamp() if said else None
        except (TypeError, ValueError):
            return None

    def refuses_wrong_checksum(self, key: str) -> t.Optional[bool]:
        wrong = base64.b64encode(hashlib.sha256(b"something else").digest()).decode()
        try:
            self.call("write", key, "put_object", Key=self._prefix + key, Body=b"probe", ChecksumSHA256=wrong)
        except RepositoryUnavailable:
            return True
        return False


def _sign_known_hashes(client: t.Any) -> None:
    """Let this client sign the hash that a big object's checksum header states, instead of hashing the body again."""
    from botocore import auth

    signer = "memops-s3v4"
    if signer not in auth.AUTH_TYPE_MAPS:

        class KnownHash(auth.S3SigV4Auth):  # type: ignore[misc]
            def payload(self, request: t.Any) -> str:
                stated = request.headers.get("x-amz-checksum-sha256")
                if stated and isinstance(request.body, bytes) and len(request.body) > SMALL:
                    return base64.b64decode(stated).hex()
                return str(super().payload(request))

        auth.AUTH_TYPE_MAPS[signer] = KnownHash

    def choose(signature_version: t.Any, **more: t.Any) -> str | None:
        return signer if signature_version in ("s3v4", "v4") else None

    client.meta.events.register_first("choose-signer.s3.PutObject", choose)


def _sentence(exc: BaseException) -> str:
    """The first line of an exception, without secrets: boto names endpoints and reasons, never keys."""
    text = str(exc).strip().splitlines()
    return (text[0] if text else type(exc).__name__).rstrip(".")[:300]
