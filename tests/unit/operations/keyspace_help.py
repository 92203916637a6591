# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runbook on another application's keys in a real Valkey server. That application is a plain client of the server,
with a user of its own; it knows nothing of the collection."""

from __future__ import annotations

import functools
import os
import secrets
import threading
import time

from redis.exceptions import NoPermissionError, RedisError

from tests.support.valkey_server import APPLICATION
from tests.unit.operations.runbook import MASTER, NAME, Site, attempt

FAR = 4_000_000_000  # seconds since 1970


class KeyspaceSite(Site):
    """A server's keys of one application as a store, its keyring and its repository."""

    def __init__(self, folder, server, token=None):
        self.folder = str(folder)
        os.makedirs(self.folder, exist_ok=True)
        master = os.path.join(self.folder, "master.key")
        with open(master, "w", encoding="ascii") as stream:
            stream.write(MASTER)
        os.chmod(master, 0o600)
        self.server, self.token = server, token or secrets.token_hex(4)
        self.app, self.root = server.client(APPLICATION), server.client()
        self.store = server.store(
            f"ops{self.token}", layout="keyspace", pattern=f"mem{self.token}:{{namespace}}:*", name=NAME
        )
        self.keyring = {"source": "file", "master_key_file": master}
        self.repository = {"url": "file://" + os.path.join(self.folder, "repository")}

    def key(self, name, namespace="agent-7"):
        return f"mem{self.token}:{namespace}:".encode() + (name.encode() if isinstance(name, str) else name)

    def fill(self, namespace="agent-7", count=30):
        """What an application may have: every type, with and without expiry, small and big, odd names."""
        app, key = self.app, functools.partial(self.key, namespace=namespace)
        for number in range(count):
            app.set(key(f"s{number:05}"), f"value {number} of {namespace} " * 5)
        app.set(key("ends"), "some day", exat=FAR)
        app.set(key("number"), 12345)
        app.set(key("bytes"), bytes(range(256)) * 10)
        app.set(key(b"\xff\xfeodd\x00 name*[?]\\"), "odd")
        app.set(key("\uf700 private"), "use")
        app.set(key(""), "no name")
        app.hset(key("hash"), mapping={"a": "1", "b": "2"})
        app.hset(key("big hash"), mapping={f"field {n}": "text " * 20 for n in range(300)})
        app.execute_command("HSET", key("hash with ends"), "a", "1", "b", "2")
        app.execute_command("HPEXPIREAT", key("hash with ends"), FAR * 1000, "FIELDS", 1, "a")
        app.rpush(key("list"), *range(2000))
        app.sadd(key("set"), *(f"member {n}" for n in range(400)))
        app.sadd(key("numbers"), *range(20))
        app.zadd(key("ranks"), {f"member {n}": n / 3 for n in range(300)})
        app.xadd(key("stream"), {"field": "value"})
        app.xgroup_create(key("stream"), "group", "0")
        app.xadd(key("stream"), {"field": "other"})
        app.expireat(key("big hash"), FAR)

    def fill_more(self, count, namespace="agent-7"):
        self.app.mset({self.key(f"more {number}", namespace): number for number in range(count)})

    def dumps(self, namespace="agent-7"):
        """{key: (DUMP, expiry)} of everything that the application has there, as the server says it."""
        keys = sorted(self.root.scan_iter(self.key("*", namespace), count=1000))
        with self.root.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.dump(key)
                pipe.execute_command("PEXPIRETIME", key)
            said = pipe.execute()
        return dict(zip(keys, zip(said[::2], said[1::2])))

    def values(self, namespace="agent-7"):
        """{key: (value as its type's own commands give it, expiry)}: a restored hash table may be in another order."""
        look = {
            b"string": ("GET",), b"hash": ("HGETALL",), b"set": ("SMEMBERS",), b"list": ("LRANGE", 0, -1),
            b"zset": ("ZRANGE", 0, -1, "WITHSCORES"), b"stream": ("XRANGE", "-", "+"),
        }  # fmt: skip
        found = {}
        for key in self.root.scan_iter(self.key("*", namespace), count=1000):
            name, *more = look[self.root.type(key)]
            value = self.root.execute_command(name, key, *more)
            groups = self.root.xinfo_groups(key) if name == "XRANGE" else None
            found[key] = (value, groups, self.root.execute_command("PEXPIRETIME", key))
        return found

    def own(self):
        """Keys of the collection's own below its prefix that hold records."""
        return [key for key in self.root.scan_iter(f"ops{self.token}:*", count=1000) if b":g:" in key]

    def patterns(self):
        """Of all keys that a test may leave behind."""
        return (f"mem{self.token}:*", f"ops{self.token}:*")

    def wipe(self):
        for pattern in self.patterns():
            keys = list(self.root.scan_iter(pattern, count=1000))
            if keys:
                self.root.unlink(*keys)
        self.server.reset_users()
        self.app.close()
        self.root.close()


def rebuild(site, window=None, strategy="auto", absent="auto", until="release", run=None):
    """The runbook from isolate to ``until``, of keys without a log; {step: its result}."""
    run, done = run or attempt(), {}
    options = {"diagnose": {"window": window}, "plan": {"strategy": strategy, "absent": absent}}
    for name in ("isolate", "forensic", "diagnose", "plan", "apply", "validate", "release"):
        done[name] = site.step(name, run, **options.get(name, {}))
        if name == until:
            break
    return done


class Agent(threading.Thread):
    """An application that goes on reading and writing its own namespace, whatever is done to it."""

    def __init__(self, site, namespace):
        super().__init__()
        self.site, self.namespace = site, namespace
        self.ended = threading.Event()
        self.written, self.refused, self.wrong, self.other = {}, 0, [], []

    def run(self):
        client, number = self.site.server.client(APPLICATION), 0
        while not self.ended.is_set():
            number += 1
            key, value = self.site.key(f"live{number % 50}", self.namespace), f"{number}".encode()
            try:
                client.set(key, value)
                self.written[key] = value
                if client.get(key) != value:
                    self.wrong.append(key)
            except NoPermissionError:
                self.refused += 1
            except RedisError as exc:
                self.other.append(repr(exc))
            time.sleep(0.002)
        client.close()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.ended.set()
        self.join()
