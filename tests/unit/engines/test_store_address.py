# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""An address of another engine's server is told in one sentence, whatever it holds."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import InvalidInput
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store


@pytest.mark.parametrize(
    ("params", "said", "next_step"),
    [
        ({"url": "postgresql://me:s3cret@db/x"}, "an address of postgresql.*the engine is sqlite where none is set",
         "set memory_store.engine to postgresql, or path"),
        ({"url": "postgresql://me:s3cret@db/x", "layout": "mem0"}, "an address of postgresql", "engine to postgresql"),
        ({"engine": "valkey", "url": "postgresql://db/x"}, "memory_store.engine is valkey", "correct memory_store.url"),
        ({"engine": "postgresql", "url": "rediss://:s3cret@h"}, r"of valkey \(rediss://\)", "engine to valkey"),
        ({"engine": "sqlite", "url": "mysql://me:s3cret@h/x"}, "is for a server", "set memory_store.path"),
        ({"engine": "sqlite", "url": "/var/lib/x.db"}, "is for a server", "set memory_store.path"),
    ],
)  # fmt: skip
def test_the_wrong_engine_for_an_address(params, said, next_step):
    with pytest.raises(InvalidInput, match=said) as found:
        open_store(params)
    assert next_step in found.value.next_step and "s3cret" not in str(found.value)
