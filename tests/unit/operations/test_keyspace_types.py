# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Every type of value of another application, with what is odd about it, comes back as it was: by a rebuild from a
snapshot, and into an emptied server. On Valkey and on Redis 7.0."""

from __future__ import annotations

import functools
import math

import pytest

from tests.support.debian import need
from tests.support.valkey_server import ValkeyServer
from tests.unit.operations.keyspace_help import FAR, KeyspaceSite
from tests.unit.operations.runbook import attempt
from tests.unit.operations.test_fence_left import brought_back

NS = "{tenant}"  # as keys of a Cluster have it


class Odd(KeyspaceSite):
    def fill_odd(self, fields_end):
        app, key = self.app, functools.partial(self.key, namespace=NS)
        app.pfadd(key("few"), 1, 2, 3)
        app.pfadd(key("many"), *range(5000))
        app.setbit(key("bits"), 1 << 20, 1)
        app.setbit(key("no bit"), 7, 0)
        app.set(key("empty"), b"")
        app.set(key("least"), -(2**63))
        app.set(key("too long for a number"), 2**64)
        app.set(key(b"\0\x01\xfe"), b"\0")
        app.set(key("k" * 5000), 1)
        app.set(key("a{b}{c}\n'\""), 1, pxat=FAR * 1000 + 123)
        scores = {"a": math.inf, "b": -math.inf, "c": 0.1 + 0.2, "d": -0.0, "e": 1e308, "f": 5e-324, "g": 1e17 + 2}
        app.zadd(key("scores"), scores)
        app.zadd(key("many scores"), {f"m{n}": n / 7 * 10.0 ** (n % 300) for n in range(500)} | scores)
        app.geoadd(key("places"), (13.361389, 38.115556, "Palermo"))
        app.hset(key("hash"), mapping={b"\0": b"\xff", "": "", "long": "y" * 100_000})
        if fields_end:
            app.hset(key("ends"), mapping={f"f{n}": n for n in range(600)})
            names = [f"f{n}" for n in range(0, 600, 2)]
            app.execute_command("HPEXPIREAT", key("ends"), FAR * 1000 + 7, "FIELDS", len(names), *names)
        app.sadd(key("big numbers"), 2**62, -(2**62), 1)
        app.sadd(key("mixed"), *range(100), "x", "")
        app.rpush(key("list"), "", b"\xff" * 10_000, *range(2000))
        self._stream(key("stream"))
        app.xadd(key("no entry"), {"a": 1})
        app.xtrim(key("no entry"), 0, approximate=False)
        app.xgroup_create(key("only a group"), "group", "$", mkstream=True)

    def _stream(self, stream):
        """Entries that were deleted and trimmed; groups with consumers who were given some and have not said so."""
        app = self.app
        for number in range(250):
            app.xadd(stream, {"f": number, b"\xff": b""}, id=f"{number + 1}-{number}")
        app.xdel(stream, "3-2", "70-69")
        app.xtrim(stream, 200, approximate=False)
        app.xgroup_create(stream, "group", "0")
        app.xgroup_create(stream, "behind", "100-99", entries_read=7)
        app.xreadgroup("group", "alice", {stream: ">"}, count=20)
        app.xreadgroup("group", "bob", {stream: ">"}, count=5)
        app.xack(stream, "group", "60-59")
        app.xclaim(stream, "group", "bob", 0, ["61-60"])
        app.xgroup_createconsumer(stream, "behind", "nobody")

    def everything(self):
        """{key: (value by its own commands, when fields expire, when it expires)}, streams with all that is known."""
        found = {}
        for key, (value, _groups, ends) in self.values(NS).items():
            kind, fields = self.root.type(key), None
            if kind == b"stream":
                said = self.root.xinfo_stream(key, full=True)
                value = {name: one for name, one in said.items() if "radix" not in str(name)}
            elif kind == b"hash" and value and self.fields_end:
                fields = self.root.execute_command("HPEXPIRETIME", key, "FIELDS", len(value), *sorted(value))
            found[key] = (value, fields, ends)
        return found


@pytest.fixture(params=["valkey", "redis 7.0"])
def site(tmp_path, request):
    valkey = request.param == "valkey"
    with ValkeyServer(binary="" if valkey else need("redis-server", "redis-server")) as server:
        one = Odd(tmp_path, server)
        one.fields_end = valkey
        one.fill_odd(valkey)
        yield one
        one.wipe()


def test_all_comes_back_by_a_rebuild_and_into_an_emptied_server(site):
    before = site.everything()
    assert len(before) == 20 + site.fields_end
    site.backup()
    site.root.unlink(*before)
    run = attempt()
    done = {}
    for name, options in (
        ("isolate", {}), ("forensic", {}), ("diagnose", {"window": None}),
        ("plan", {"strategy": "hard", "absent": "restore"}), ("apply", {}),
    ):  # fmt: skip
        done[name] = site.step(name, run, NS, **options)
    assert done["plan"]["records"]["repair"] == len(before)
    assert site.everything() == before
    site.step("release", run, NS, force=True)
    site.root.flushall()
    assert brought_back(site)["restored"] == len(before)
    assert site.everything() == before
