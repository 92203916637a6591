# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What stands in for a keyring where the records are an application's own and nothing of ours seals them.

PRIVATE to the collection.
"""
from __future__ import annotations

import typing as t

from ._errors import CapabilityMissing, KeyUnavailable
from ._store import Store


class Unsealed:
    """Opens what has no record key, and nothing else."""

    active_id = ""

    def ids(self) -> list[str]:
        return [""]

    def cipher(self, key_id: str) -> Unsealed:
        if key_id:
            raise KeyUnavailable(
                f"The record key {key_id:.60} is named where nothing is sealed.", "verify the snapshot it came from"
            )
        return self

    def decrypt(self, _nonce: bytes, data: bytes, _head: bytes) -> bytes:
        return data

    def open_payload(self, payload: bytes, _head: bytes, key_id: str) -> bytes:
        self.cipher(key_id)
        return payload

    def seal(self, _plain: bytes, _head: bytes, _key_id: str) -> bytes:
        raise CapabilityMissing(
            "The layout has no encryption: its values are the application's own.", "write through that application"
        )


def opener(store: Store, keyring: t.Any) -> t.Any:
    """What opens the payloads of this store's records."""
    return keyring if "encryption" in store.capabilities() else Unsealed()
