# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A TLS authority for test servers, and certificates by it."""
from __future__ import annotations

import datetime
import ipaddress
import os
import pathlib
import shutil
import typing as t


class Authority:
    """Its certificate is ``ca``; valid for a day."""

    def __init__(self, folder: t.Any, name: str = "authority") -> None:
        self.folder = pathlib.Path(str(folder))
        self._key, self._name = _new_key(), name
        self._made = self._sign(name, self._key, ca=True)
        self.ca = str(self._write(f"{name}.crt", _pem(self._made)))

    def certificate(self, host: str, folder: t.Any = None, owner: str = "") -> tuple[str, str]:
        """Paths in ``folder`` of a certificate for this host name or address alone and of its key, which ``owner`` may
        read."""
        key = _new_key()
        made = self._sign(host, key, ca=False)
        paths = self._write(f"{host}.crt", _pem(made), folder), self._write(f"{host}.key", _private(key), folder)
        for path in paths:
            os.chmod(path, 0o600)
            if owner:
                shutil.chown(path, owner)
        return str(paths[0]), str(paths[1])

    def _write(self, name: str, data: bytes, folder: t.Any = None) -> pathlib.Path:
        path = pathlib.Path(str(folder or self.folder)) / name
        path.write_bytes(data)
        return path

    def _sign(self, host: str, key: t.Any, *, ca: bool) -> t.Any:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        subject, issuer = (
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in (host, self._name)
        )
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([_named(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )  # fmt: skip


def _named(host: str) -> t.Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _new_key() -> t.Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _pem(made: t.Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return bytes(made.public_bytes(Encoding.PEM))


def _private(key: t.Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
