# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The ciphers by which agent frameworks encrypt memories themselves. No I/O.

PRIVATE to the collection. LangGraph's EncryptedSerializer uses AES in EAX mode, which the library cryptography does not
have by that name; EAX is CTR for the text and CMAC for the rest (Bellare, Rogaway, Wagner 2004), and it has those. So
the memory host needs no second library of ciphers for some thirty lines.
"""
from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import typing as t

from ._errors import InvalidInput, KeyUnavailable

AES: t.Final = "langgraph-aes"
FERNET: t.Final = "agents-fernet"
INLINE: t.Final = "inline"  # nothing is encrypted there, whatever the application believes
RAW: t.Final = "base64:"  # what a key that is no text begins with
_BLOCK: t.Final = 16
_INFO: t.Final = b"agents.session-store.hkdf.v1"


class Shut(ValueError):
    """The key does not open the value, or the value is damaged: nobody can tell the one from the other."""


class Eax:
    """AES-EAX as LangGraph stores it: 16 bytes of nonce, 16 of tag, then the ciphertext."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
        from cryptography.hazmat.primitives.cmac import CMAC

        aes = algorithms.AES(key)
        self._cipher, self._ctr_mode, self._aes = Cipher, modes.CTR, aes
        self._begun = []
        for number in range(3):
            mac = CMAC(aes)
            mac.update(bytes(_BLOCK - 1) + bytes((number,)))
            self._begun.append(mac)
        self._header = self._omac(1, b"")

    def _ctr(self, counter: bytes, data: bytes) -> bytes:
        return bytes(self._cipher(self._aes, self._ctr_mode(counter)).encryptor().update(data))

    def _omac(self, number: int, data: bytes) -> bytes:
        mac = self._begun[number].copy()
        mac.update(data)
        return mac.finalize()

    def _tag(self, counter: bytes, text: bytes) -> bytes:
        parts = (counter, self._header, self._omac(2, text))
        found = 0
        for part in parts:
            found ^= int.from_bytes(part, "big")
        return found.to_bytes(_BLOCK, "big")

    def open(self, value: bytes) -> bytes:
        """Errors: Shut."""
        nonce, tag, text = value[:_BLOCK], value[_BLOCK : 2 * _BLOCK], value[2 * _BLOCK :]
        counter = self._omac(0, nonce)
        if len(tag) != _BLOCK or not hmac.compare_digest(tag, self._tag(counter, text)):
            raise Shut("it does not open")
        return self._ctr(counter, text)

    def seal(self, plain: bytes, nonce: bytes | None = None) -> bytes:
        nonce = nonce or os.urandom(_BLOCK)
        counter = self._omac(0, nonce)
        text = self._ctr(counter, plain)
        return nonce + self._tag(counter, text) + text


class SessionFernet:
    """Fernet with the key of one session, as EncryptedSession of the OpenAI Agents SDK derives it."""

    def __init__(self, key: bytes, session: str) -> None:
        from cryptography.fernet import Fernet, InvalidToken
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        derived = HKDF(hashes.SHA256(), 32, session.encode("utf-8", "surrogateescape"), _INFO).derive(key)
        self._fernet, self._invalid = Fernet(base64.urlsafe_b64encode(derived)), InvalidToken

    def open(self, token: str) -> bytes:
        """Whatever its age: what has expired for the SDK is no less readable. Errors: Shut."""
        try:
            return bytes(self._fernet.decrypt(token))
        except (self._invalid, TypeError, ValueError):
            raise Shut("it does not open") from None

    def seal(self, plain: bytes, former: str) -> str:
        """With the time of the former token, by which the SDK judges when it expires."""
        return self._fernet.encrypt_at_time(plain, self._fernet_time(former)).decode("ascii")

    def _fernet_time(self, token: str) -> int:
        return int.from_bytes(base64.urlsafe_b64decode(token)[1:9], "big")


class ApplicationKey:
    """One key of an application, as its text was given. It says nothing of itself but a fingerprint."""

    def __init__(self, text: str, where: str) -> None:
        """``where``: what names it in an error."""
        self._where = where
        self._text = text
        self._ciphers: dict[tuple[str, str], t.Any] = {}
        if not text:
            raise InvalidInput(f"The application's key in {where} is empty.", f"correct {where}")
        raw = text.encode("utf-8", "surrogateescape")
        self.fingerprint = hashlib.sha256(b"memops application key\0" + raw).hexdigest()[:12]

    def __repr__(self) -> str:
        return f"<application key {self.fingerprint}>"

    def cipher(self, kind: str, session: str = "") -> t.Any:
        """Errors: InvalidInput for a key that no such cipher can have, KeyUnavailable (no cryptography)."""
        session = session if kind == FERNET else ""
        found = self._ciphers.get((kind, session))
        if found is None:
            if len(self._ciphers) > 1000:
                self._ciphers.clear()
            try:
                found = Eax(self._aes()) if kind == AES else SessionFernet(self._fernet(), session)
            except ImportError:
                raise KeyUnavailable(
                    "The library cryptography is missing, without which nothing can be opened.",
                    "install it for the Python on the memory host, or leave memory_store.application_key_file out",
                ) from None
            self._ciphers[kind, session] = found
        return found

    def _raw(self) -> bytes:
        if not self._text.startswith(RAW):
            return self._text.encode("utf-8", "surrogateescape")
        try:
            return base64.b64decode(self._text[len(RAW) :], validate=True)
        except ValueError:
            raise InvalidInput(
                f"The application's key in {self._where} begins with {RAW} and is no base64.", f"correct {self._where}"
            ) from None

    def _aes(self) -> bytes:
        raw = self._raw()
        if len(raw) not in (16, 24, 32):
            raise InvalidInput(
                f"The application's key in {self._where} has {len(raw)} bytes; an AES key has 16, 24 or 32.",
                f"give the text of LANGGRAPH_AES_KEY, or {RAW} and the base64 of a key that is no text",
            )
        return raw

    def _fernet(self) -> bytes:
        """As the SDK takes it: a Fernet key, or any text."""
        if self._text.startswith(RAW):
            return self._raw()
        try:
            decoded = base64.urlsafe_b64decode(self._text)
        except (binascii.Error, ValueError):
            decoded = b""
        return decoded if len(decoded) == 32 else self._raw()


def read_keys(value: str | None, path: str | None, option: str) -> list[ApplicationKey]:
    """The keys of an application: ``value``, or each line of the file ``path``; the present one first. ``option``: what
    the file's option is called, for errors. Errors: KeyUnavailable, InvalidInput."""
    if value is not None and path:
        raise InvalidInput(f"There are two keys: {option} and the value itself.", "give one of them")
    if value is not None:
        return [ApplicationKey(value, option[: -len("_file")])]
    if not path:
        return []
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            lines = [line.strip() for line in stream]
    except OSError as exc:
        raise KeyUnavailable(
            f"The application's key {path} cannot be read: {exc.strerror}.", f"correct {option}, or leave it out"
        ) from None
    found = [ApplicationKey(line, path) for line in lines if line]
    if not found:
        raise InvalidInput(f"The application's key {path} is empty.", f"correct {option}")
    return found
