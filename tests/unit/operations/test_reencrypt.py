# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a rotation's processes make of rows, column by column: a row that fails must not move its neighbours."""

from __future__ import annotations

import random

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.reencrypt import Encryptor
from tests.support.stores import keyring_params

NAMESPACE = "agent-7"
DAMAGES = [
    ("key", 0, b"bytes"),
    ("surrogate in the key", 0, "user/\udc80"),
    ("epoch", 1, "one"),
    ("sequence", 2, None),
    ("created", 3, b"never"),
    ("updated", 4, -(1 << 63) - 1),
    ("expires", 5, -1),
    ("deleted", 6, -1),
    ("an unknown key", 7, "kgone"),
    ("no key", 7, None),
    ("a key of another type", 7, b"kgone"),
    ("payload", 8, bytes(100)),
    ("a short payload", 8, b"x"),
    ("text for a payload", 8, "text"),
    ("a number for a payload", 8, 7),
    ("no payload", 8, None),
]


@pytest.fixture
def ring(tmp_path):
    return Keyring.open(keyring_params(str(tmp_path)), create=True)


def sealed(ring, number, key_id):
    codec = RecordCodec(NAMESPACE)
    times = (None, 5) if number % 3 else (10**15, None)
    row = (f"user/{number}", 1, number, 2, 3, *times, key_id, b"", b"")
    row = (*row[:8], ring.seal(b"value %d" % number, codec.head(row), key_id), b"")
    return (*row[:9], codec.checksum(row))


def assert_sealed_anew(ring, rows, changes, target):
    codec = RecordCodec(NAMESPACE)
    assert [change[3:] for change in changes] == [(row[0], row[9]) for row in rows]
    for row, (key_id, payload, checksum, _key, _expected) in zip(rows, changes):
        new = (*row[:7], key_id, payload, checksum)
        assert (key_id, codec.intact(new)) == (target, True)
        assert ring.open_payload(payload, codec.head(new), target) == b"value %d" % row[2]


@pytest.mark.parametrize(("field", "wrong"), [damage[1:] for damage in DAMAGES], ids=[one[0] for one in DAMAGES])
def test_one_row_that_does_not_open_is_left_out_alone(ring, field, wrong):
    old, target = ring.active_id, ring.create_key()
    rows = [sealed(ring, number, old) for number in range(9)]
    rows[4] = (*rows[4][:field], wrong, *rows[4][field + 1 :])
    changes, failed = Encryptor(NAMESPACE, ring, target).encrypt(rows)
    assert_sealed_anew(ring, rows[:4] + rows[5:], changes, target)
    why = "the record key is not at hand" if field == 7 else "the payload does not open with its record key"
    assert [one["evidence"] for one in failed] == [why]


def test_rows_of_several_keys_come_back_in_the_order_of_their_own_keys(ring):
    keys = [ring.active_id, ring.create_key()]
    target = ring.create_key()
    chance = random.Random(5)
    rows = sorted(sealed(ring, number, chance.choice(keys)) for number in range(40))
    encryptor = Encryptor(NAMESPACE, ring, target)
    changes, failed = encryptor.encrypt(rows)
    assert failed == []
    assert_sealed_anew(ring, rows, changes, target)
    assert encryptor.key_ids() == set(keys)
    assert len({change[1][:12] for change in changes}) == 40  # no nonce twice


def test_nothing_and_nothing_that_opens_is_no_work(ring):
    encryptor = Encryptor(NAMESPACE, ring, ring.create_key())
    assert encryptor.encrypt([]) == ([], [])
    changes, failed = encryptor.encrypt([(*sealed(ring, 1, ring.active_id)[:8], b"", b"")] * 3)
    assert (changes, len(failed)) == ([], 3)
