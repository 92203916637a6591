# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A log entry's checksum is over one text, whichever way it is made."""
from __future__ import annotations

import hashlib
import json

from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import log_checksum

text = st.text(st.characters(), max_size=20)  # surrogates too: what a damaged log holds is decoded leniently
odd = st.none() | st.integers() | text | st.binary(max_size=40) | st.floats(allow_nan=False, allow_infinity=False)
usual = st.tuples(
    st.integers(), text, text, text, st.integers(), st.integers(), st.binary(max_size=32), st.none() | st.integers(),
    text, st.none() | text,
)  # fmt: skip


@given(usual | st.tuples(*[odd] * 10))
@example((1, "agent-7", "write", 'a "key"\n\x00é\u2028\U0001f600', 1, 2, b"\x00" * 32, 3, "agent", None))
@example((1, "agent-7", "hit", None, None, None, None, None, "agent", "why"))
def test_it_is_over_the_compact_ascii_json_of_the_fields(fields):
    plain = [value.hex() if isinstance(value, bytes) else value for value in fields]
    body = json.dumps(plain, ensure_ascii=True, separators=(",", ":")).encode()
    assert log_checksum((7, *fields, b"own")) == hashlib.sha256(b"memops log 1\0" + body).digest()[:16]
