# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What is taken from a user's rules of keys takes no other key, as the server itself judges."""
from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_rules import readable, without
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_values import Names

AWKWARD = "a\0{b}*[^x]? -ü"


@settings(max_examples=60)
@given(
    fenced=st.lists(st.sampled_from(["a", "ab", "b", AWKWARD, "a-b", "%", "ü"]), unique=True, max_size=3),
    others=st.lists(st.sampled_from(["a", "ab", "abc", "b", AWKWARD, "a-b", "a_b", "", "ü", "{"]), unique=True),
    base=st.sampled_from(["~*", "~t:*", "~t:{*", "%R~t:{a*", "~t:{[^b]*", r"~t[^\-x]*", "~[^u]*"]),
    tails=st.lists(st.text("t:{}ab-r1", max_size=4)),
)
def test_all_other_keys_stay(valkey_server, fenced, others, base, tails):
    """The server itself says, before and after, which keys the user may read."""
    names = Names("t")
    beginnings = [names.fenced(name) for name in fenced]
    keys = {"t", "t:", "t:{", "t:store", "x", *tails}
    keys |= {names.fenced(name)[:-1] for name in others} | {names.fenced(name) + "r:1" for name in others}
    keys = sorted(keys - {""})
    with valkey_server.client() as client:

        def may(*rules):
            client.execute_command("ACL", "SETUSER", "tried", "resetkeys", "on", "+@all", *rules)
            pipe = client.pipeline(transaction=False)
            for key in keys:
                pipe.execute_command("ACL", "DRYRUN", "tried", "GET", key)
            return {key for key, said in zip(keys, pipe.execute()) if said == b"OK"}

        before, after = may(base), may(*without([base], beginnings))
        one_by_one = [base]
        for one in beginnings:
            one_by_one = without(one_by_one, [one])
        assert may(*one_by_one) == after

        def may_write(*rules):
            client.execute_command("ACL", "SETUSER", "tried", "resetkeys", "on", "+@all", *rules)
            pipe = client.pipeline(transaction=False)
            for key in keys:
                pipe.execute_command("ACL", "DRYRUN", "tried", "SET", key, "x")
            return {key for key, said in zip(keys, pipe.execute()) if said == b"OK"}

        writable, read_only = may_write(base), readable([base], beginnings)
        assert may(*read_only) == before
        assert may_write(*read_only) == {k for k in writable if not any(k.startswith(one) for one in beginnings)}
        client.execute_command("ACL", "DELUSER", "tried")
    assert set(one_by_one) == set(without([base], beginnings))
    assert after == {key for key in before if not any(key.startswith(one) for one in beginnings)}
