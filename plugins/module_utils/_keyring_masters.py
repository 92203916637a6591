# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the master key is (a file, the environment, the caller, AWS KMS, Vault) and how it encrypts a few bytes.

PRIVATE to the collection. A master never leaves this file: callers hand in bytes and a context that is bound to them.
"""
from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import logging
import os
import re
import stat
import typing as t
import urllib.parse

from ._errors import InvalidInput, KeyDoesNotOpen, KeyUnavailable, MemoryOpsError

LOG = logging.getLogger("memops.agent_memory")
_MAKE_ONE = "(umask 077; openssl rand -base64 32 > {})"


class Master(t.Protocol):
    """One master key. ``id`` is stable, names no secret and is fit for a file name."""

    id: str

    def encrypt(self, plaintext: bytes, context: str) -> str:
        """Text for the keyring file. Errors: KeyUnavailable."""

    def decrypt(self, ciphertext: str, context: str) -> bytes:
        """Errors: KeyUnavailable when it was not made by this master with this context, or the service is away."""


def aes() -> t.Any:
    """cryptography's AESGCM class. Errors: MemoryOpsError that names the package."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise MemoryOpsError(
            "The Python package cryptography is missing, and payloads are sealed with it.",
            "pip install cryptography",
        ) from None
    return AESGCM


def open_master(params: t.Mapping[str, t.Any]) -> Master:
    """The master key that ``params`` (source and the options of that source) describes.

    Errors: InvalidInput (bad options), KeyUnavailable (no such key, not to be read, malformed).
    """
    source = params.get("source") or "file"
    if source == "file":
        return LocalMaster(_parse(_read_master_file(_need(params, "master_key_file")), "the master key file"))
    if source == "env":
        name = params.get("master_key_env") or "MEMORY_MASTER_KEY"
        text = os.environ.get(name)
        if not text:
            raise KeyUnavailable(
                f"The environment variable {name} with the master key is not set.",
                f"set {name} to the master key in base64, or choose another memory_keyring.source",
            )
        return LocalMaster(_parse(text, f"the environment variable {name}"))
    if source == "value":
        return LocalMaster(_parse(_need(params, "master_key"), "memory_keyring.master_key"))
    if source == "aws_kms":
        return KmsMaster(params)
    if source == "vault":
        return VaultMaster(params)
    raise InvalidInput(
        f"There is no keyring source {source!r:.40}.",
        "set memory_keyring.source to one of: file, env, value, aws_kms, vault",
    )


def _need(params: t.Mapping[str, t.Any], name: str) -> str:
    value = params.get(name)
    if not value or not isinstance(value, str):
        source = params.get("source") or "file"
        raise InvalidInput(f"A keyring of source {source} needs {name}.", f"set memory_keyring.{name}")
    return value


def _read_master_file(path: str) -> str:
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & (stat.S_IROTH | stat.S_IWOTH):
                raise KeyUnavailable(
                    f"The master key file {path} is open to every user of this machine (mode {mode & 0o777:04o}).",
                    f"chmod 600 {path}, and treat the key as known to others",
                )
            return file.read(4096).decode("ascii", "replace")
    except FileNotFoundError:
        raise KeyUnavailable(
            f"There is no master key file {path}.",
            f"put the master key back from where it is kept, or for a new store make one: {_MAKE_ONE.format(path)}",
        ) from None
    except OSError as exc:
        raise KeyUnavailable(
            f"The master key file {path} cannot be read: {exc.strerror}.", f"let this user read {path}"
        ) from None


def _parse(text: str, where: str) -> bytes:
    """32 bytes from hex or base64 (also URL-safe, with or without padding). The text never gets into a message."""
    text = "".join(text.split())
    key = b""
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        key = bytes.fromhex(text)
    elif re.fullmatch(r"[A-Za-z0-9+/_-]{43}=?", text):
        try:
            key = base64.b64decode(text.rstrip("=").replace("-", "+").replace("_", "/") + "=", validate=True)
        except binascii.Error:
            key = b""
    if len(key) != 32:
        raise KeyUnavailable(
            f"What {where} holds is no master key: 32 bytes as 44 characters of base64 or 64 of hex.",
            f"put the right key there, or for a new store make one: {_MAKE_ONE.format('FILE')}",
        )
    return key


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")


class LocalMaster:
    """32 bytes in this process; AES-256-GCM."""

    def __init__(self, key: bytes) -> None:
        self.id = hashlib.sha256(b"memops master key id 1\0" + key).hexdigest()[:16]
        self._cipher = aes()(key)

    def encrypt(self, plaintext: bytes, context: str) -> str:
        nonce = os.urandom(12)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, plaintext, self._bound(context))).decode()

    def decrypt(self, ciphertext: str, context: str) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            raw = base64.b64decode(ciphertext, validate=True)
            return t.cast(bytes, self._cipher.decrypt(raw[:12], raw[12:], self._bound(context)))
        except (InvalidTag, ValueError):
            raise _damaged(self.id, context) from None

    def _bound(self, context: str) -> bytes:
        return f"memops wrapped key 1\0{self.id}\0{context}".encode()


def _damaged(master_id: str, context: str) -> KeyDoesNotOpen:
    return KeyDoesNotOpen(
        f"The wrapped key {context!r:.80} does not open with the master key {master_id}: it was changed or is cut.",
        "take the wrapped keys back from the newest snapshot: restore the keyring",
    )


class KmsMaster:
    """A symmetric key in AWS KMS. The context is the encryption context, which KMS authenticates."""

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        self._key = _need(params, "kms_key_id")
        self.id = _safe(f"kms-{self._key}")
        try:
            from boto3.session import Session
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ImportError:
            raise MemoryOpsError(
                "The Python package boto3 is missing, and the master key is in AWS KMS.", "pip install boto3"
            ) from None
        try:
            session = Session(profile_name=params.get("profile") or None, region_name=params.get("region") or None)
            self._client: t.Any = session.client(
                "kms",
                endpoint_url=params.get("endpoint_url") or None,
                config=Config(connect_timeout=5, read_timeout=15, retries={"max_attempts": 3, "mode": "standard"}),
            )
        except (BotoCoreError, ValueError) as exc:
            raise self._away(exc) from None

    def encrypt(self, plaintext: bytes, context: str) -> str:
        answer = self._call("encrypt", KeyId=self._key, Plaintext=plaintext, EncryptionContext={"memops": context})
        return base64.b64encode(answer["CiphertextBlob"]).decode()

    def decrypt(self, ciphertext: str, context: str) -> bytes:
        try:
            blob = base64.b64decode(ciphertext, validate=True)
        except ValueError:
            raise _damaged(self.id, context) from None
        answer = self._call("decrypt", KeyId=self._key, CiphertextBlob=blob, EncryptionContext={"memops": context})
        return t.cast(bytes, answer["Plaintext"])

    def _call(self, operation: str, **arguments: t.Any) -> t.Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._client, operation)(**arguments)
        except ClientError as exc:
            code = exc.response.get("Error", {}).get("Code", "error")
            if code in ("InvalidCiphertextException", "IncorrectKeyException"):
                raise _damaged(self.id, arguments["EncryptionContext"]["memops"]) from None
            raise KeyUnavailable(
                f"AWS KMS refused to {operation} with the key {self._key}: {code}.",
                "check memory_keyring.kms_key_id and region, and that this identity may kms:Encrypt and kms:Decrypt",
            ) from None
        except BotoCoreError as exc:
            raise self._away(exc) from None

    def _away(self, exc: Exception) -> KeyUnavailable:
        # The class alone: a botocore message may quote what was sent.
        return KeyUnavailable(
            f"AWS KMS cannot be used for the key {self._key}: {type(exc).__name__}.",
            "check memory_keyring.region, endpoint_url, profile and the credentials of this machine",
        )


class VaultMaster:
    """A key of Vault's transit engine. The context goes in as associated data and also, hashed, in front of the
    plaintext: a Vault that is too old for associated data ignores it silently."""

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        self._key = _need(params, "vault_key")
        mount = (params.get("vault_mount") or "transit").strip("/")
        self.id = _safe(f"vault-{mount}-{self._key}")
        url = urllib.parse.urlsplit(_need(params, "vault_url"))
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.password or url.query:
            raise InvalidInput(
                "memory_keyring.vault_url must look like https://host:8200, without user, password or query.",
                "correct memory_keyring.vault_url; the token comes from vault_token_file or vault_token_env",
            )
        if url.scheme == "http" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
            LOG.warning("record keys travel unencrypted to Vault at %s: use https", url.hostname)
        self._base = f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}/v1/{urllib.parse.quote(mount)}"
        self._token_file = params.get("vault_token_file")
        self._token_env = params.get("vault_token_env") or "VAULT_TOKEN"
        self._opener = _opener()

    def encrypt(self, plaintext: bytes, context: str) -> str:
        return str(
            self._call(
                "encrypt",
                context,
                plaintext=base64.b64encode(_context_tag(context) + plaintext).decode(),
            )["ciphertext"]
        )

    def decrypt(self, ciphertext: str, context: str) -> bytes:
        try:
            raw = base64.b64decode(str(self._call("decrypt", context, ciphertext=ciphertext)["plaintext"]))
        except ValueError:
            raise _damaged(self.id, context) from None
        tag = _context_tag(context)
        if not hmac.compare_digest(raw[: len(tag)], tag):
            raise _damaged(self.id, context)
        return raw[len(tag) :]

    def _token(self) -> str:
        if self._token_file:
            try:
                with open(self._token_file, encoding="ascii", errors="replace") as file:
                    token = file.read(4096).strip()
            except OSError as exc:
                raise KeyUnavailable(
                    f"The Vault token file {self._token_file} cannot be read: {exc.strerror}.",
                    "correct memory_keyring.vault_token_file or its permissions",
                ) from None
        else:
            token = os.environ.get(self._token_env, "").strip()
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise KeyUnavailable(
                f"There is no Vault token in {self._token_file or 'the environment variable ' + self._token_env}.",
                "log in to Vault, or set memory_keyring.vault_token_file",
            )
        return token

    def _call(self, operation: str, context: str, **body: str) -> t.Mapping[str, t.Any]:
        from urllib.error import HTTPError, URLError
        from urllib.request import Request

        url = f"{self._base}/{operation}/{urllib.parse.quote(self._key, safe='')}"
        body["associated_data"] = base64.b64encode(context.encode()).decode()
        request = Request(
            url,
            data=json.dumps(body).encode(),
            headers={"X-Vault-Token": self._token(), "Content-Type": "application/json"},
            method="POST",
        )
        reason, advice = "", "check memory_keyring.vault_url and that Vault is up and unsealed"
        try:
            with self._opener.open(request, timeout=15) as response:
                data = json.loads(response.read(1 << 20))["data"]
                if isinstance(data, dict) and isinstance(data.get("ciphertext", data.get("plaintext")), str):
                    return data
            reason = "it answered something that is not transit"
        except HTTPError as exc:
            exc.close()
            if exc.code == 400 and operation == "decrypt":
                raise _damaged(self.id, context) from None
            reason = f"HTTP status {exc.code}"
            if exc.code in (403, 404):
                advice = f"check the token and its policy for {operation}, vault_mount and vault_key"
        except (URLError, OSError) as exc:
            cause = getattr(exc, "reason", exc)
            reason = getattr(cause, "strerror", None) or type(cause).__name__
        except (ValueError, KeyError, TypeError):
            reason = "it answered something that is not transit"
        raise KeyUnavailable(f"Vault at {self._base} did not {operation} with the key {self._key}: {reason}.", advice)


def _opener() -> t.Any:
    # Imported here: every module opens a keyring, few have theirs in Vault, and HTTP is a tenth of what a module loads.
    from urllib.request import HTTPRedirectHandler, build_opener

    class NoRedirect(HTTPRedirectHandler):
        """A redirect would carry the token to another host."""

        def redirect_request(self, *args: t.Any, **kwargs: t.Any) -> None:
            return None

    return build_opener(NoRedirect())


def _context_tag(context: str) -> bytes:
    return hashlib.sha256(b"memops vault context 1\0" + context.encode()).digest()
