# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole runbook at operations level, on one real store of any engine with a directory as repository, and ways to
damage it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import (
    RecordCodec,
    decode_value,
    encode_value,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import MemoryOpsError
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    apply_step,
    diagnose_step,
    incident,
    incident_retention,
    isolate,
    plan_step,
    snapshot_step,
    validate_step,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from tests.support.engines import Bench
from tests.support.raw import COLUMNS

NS, OTHER, NAME = "agent-7", "agent-8", "main"
MASTER = "5a" * 32
STEPS = ("isolate", "forensic", "diagnose", "plan", "apply", "validate", "release")
_attempts = itertools.count(1)


def chained(lines):
    """Whether every line of a journal names the hash of the one before it and the numbers have no gap."""
    previous = None
    for number, line in enumerate(lines):
        body = json.loads(line)
        if body["n"] != number or body["previous"] != previous:
            return False
        previous = hashlib.sha256(line).hexdigest()
    return True


def attempt(**options):
    """A new attempt, as every run of a play has one."""
    return incident.Run(f"test:{os.getpid()}:{next(_attempts)}", "the test", **options)


class Site:
    """A store, its keyring and its repository below one folder; the store is in SQLite unless ``bench`` says otherwise.

    ``raw`` damages it from below, past Memory and the fence.
    """

    def __init__(self, folder, busy_timeout=20, bench=None, name="store"):
        self.folder = str(folder)
        os.makedirs(self.folder, exist_ok=True)
        master = os.path.join(self.folder, "master.key")
        if not os.path.exists(master):
            with open(master, "w", encoding="ascii") as stream:
                stream.write(MASTER)
            os.chmod(master, 0o600)
        bench = bench or Bench("sqlite", self.folder)
        more = {"layout": "native", "name": NAME, "busy_timeout": busy_timeout}
        self.store, self.application = bench.params(name, **more), bench.application(name, **more)
        self.path, self.raw, self.sql = self.store.get("path"), bench.raw(name), getattr(bench.raw(name), "sql", None)
        if not self.path:  # on a server an operator makes it, not an application
            open_store(self.store, create=True).close()
        self.keyring = {"source": "file", "path": os.path.join(self.folder, "keyring.json"), "master_key_file": master}
        self.repository = {"url": "file://" + os.path.join(self.folder, "repository")}

    # --- the application --------------------------------------------------------------------------------------
    def memory(self, **options):
        return Memory(store=self.application, keyring=self.keyring, actor=options.pop("actor", "the agent"), **options)

    def served(self, namespace=NS):
        """{key: value} of everything that an application gets, each read with all its checks."""
        with self.memory() as memory:
            keys = list(memory.list_keys(namespace))
            found = memory.read_many(namespace, keys)
            assert set(found) == set(keys)
            return found

    def ring(self):
        return Keyring.open(self.keyring)

    def unlocked(self, items, logged=True, actor="importer", deleted=False, raw_lock=None):
        """A bulk write by a program that knows the keys but takes no lock, and perhaps writes no log."""
        ring, codec = self.ring(), RecordCodec(NS)
        with self.open() as store, store.writing(NS, max(1, len(items))) as write:
            rows, entries = [], []
            for number, (key, value) in enumerate(items.items()):
                fields = (key, write.epoch, write.first_sequence + number, write.at, write.at, None)
                fields += (write.at if deleted else None, ring.active_id)
                payload = ring.seal(b"" if deleted else encode_value(value), codec.head(fields), ring.active_id)
                row = (*fields, payload, codec.checksum((*fields, payload)))
                rows.append(row)
                operation = "delete" if deleted else "write"
                entries.append((0, write.at, NS, operation, key, row[1], row[2], row[9], raw_lock, actor, None, b""))
            if logged:
                write.put(rows, entries)
        if not logged:
            self.raw.put(NS, rows)
            self.raw.take_sequences(len(rows))

    # --- operators ----------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def open(self):
        store = open_store(self.store)
        try:
            yield store
        finally:
            store.close()

    def places(self):
        return {"open_keyring": self.ring, "open_repository": lambda: Repository.open(self.repository), "name": NAME}

    def backup(self, purpose="scheduled", run=None):
        with self.open() as store:
            return snapshot_step.publish(
                store=store, store_params=self.store, keyring=self.ring(), repository=self.repository, name=NAME,
                purpose=purpose, namespaces=None, run=run or attempt(),
            )  # fmt: skip

    def step(self, name, run, namespace=NS, **options):
        """One step of the runbook with a store of its own, as one module call is."""
        with self.open() as store:
            common = {"store": store, "store_params": self.store, "namespace": namespace, "run": run}
            if name == "isolate":
                return isolate.isolate(**common, **options)
            if name in ("forensic", "baseline"):
                del common["namespace"]
                return snapshot_step.publish(
                    **common, keyring=self.ring(), repository=self.repository, name=NAME, purpose=name,
                    namespaces=[namespace], **options,
                )  # fmt: skip
            if name == "diagnose":
                return diagnose_step.investigate(
                    **common, keyring=self.ring(), repository=Repository.open(self.repository), name=NAME, **options
                )
            if name == "plan":
                return plan_step.decide(**common, **self.places(), **options)
            if name == "apply":
                return apply_step.carry_out(
                    **common, keyring=self.ring(), repository=Repository.open(self.repository), name=NAME, **options
                )
            if name == "validate":
                return validate_step.judge(**common, keyring=self.ring(), **options)
            assert name == "release"
            return isolate.release(**common, **options)

    def rebuild(self, strategy="auto", until="release", run=None, accept_loss=True, force=True):
        """The runbook from isolate to release; {step: its result}."""
        run = run or attempt()
        done = {}
        for name in STEPS:
            options = {}
            if name == "plan":
                options = {"strategy": strategy, "accept_loss": accept_loss}
            elif name == "release":
                options = {"force": force}
            done[name] = self.step(name, run, **options)
            if name == until:
                break
        return done

    def close_incident(self, namespace=NS):
        run = attempt()
        with self.open() as store:
            opened = next(one for one in store.incidents(namespace) if one.state == "open")
            run = incident.Run(opened.attempt, "the test")
            store.close_incident(incident.claim(store, namespace, run))

    def retain_incidents(self, keep=0.0, check=False, repository=True):
        with self.open() as store:
            return incident_retention.apply(
                store=store, store_params=self.store, keyring=self.ring(), name=NAME, keep=keep, run=attempt(),
                repository=Repository.open(self.repository) if repository else None, check=check,
            )  # fmt: skip

    def forget_incidents(self, rows, namespace=NS):
        """Let retention take what the closed incidents left: so many rows that were set aside, files, generations."""
        served = self.rows(namespace)
        would = self.retain_incidents(check=True)
        assert len(self.rows_aside(namespace)) == would["set_aside"] == rows and would["incidents"]
        assert self.retain_incidents() == would
        assert not self.retain_incidents()["changed"]
        assert self.rows_aside(namespace) == [] and self.rows(namespace) == served
        with self.open() as store:
            assert store.generations(namespace) == [self.generation(namespace)]
        for one in would["incidents"]:
            assert not os.path.exists(os.path.join(incident.base(self.store), one))

    # --- looks --------------------------------------------------------------------------------------------------
    def generation(self, namespace=NS):
        with self.open() as store, store.reader() as reader:
            return reader.namespace(namespace).generation

    def rows(self, namespace=NS, generation=None):
        """{key: row} of a generation as it lies there."""
        with self.open() as store, store.reader() as reader:
            return {row[0]: row for batch in reader.scan(namespace, generation=generation) for row in batch}

    def untouched(self, namespace=OTHER):
        """Everything about a namespace that no work on another one may change."""
        rows = self.rows(namespace)
        with self.open() as store, store.reader() as reader:
            log = [tuple(entry)[1:] for batch in reader.log(namespace) for entry in batch]
            return rows, log, reader.namespace(namespace), store.incidents(namespace)

    def aside(self, namespace=NS):
        """{key: [row]} of what was set aside."""
        found = {}
        with self.open() as store, store.reader() as reader:
            for batch in reader.aside(namespace):
                for _incident, _reason, row in batch:
                    found.setdefault(row[0], []).append(row)
        return found

    def rows_aside(self, namespace=NS):
        with self.open() as store, store.reader() as reader:
            return [one for batch in reader.aside(namespace) for one in batch]

    def value_of(self, row, namespace=NS):
        """The value that a sealed row holds; raises when it does not open."""
        codec = RecordCodec(namespace)
        assert codec.intact(row)
        return decode_value(self.ring().open_payload(row[8], codec.head(row), row[7]))

    def facts(self, namespace=NS):
        with self.open() as store:
            return next(dict(one.facts) for one in store.incidents(namespace))

    def state(self, namespace=NS):
        with self.open() as store, store.reader() as reader:
            return reader.namespace(namespace).state


def forge_checksum(con, key, generation):
    """Give the row as it lies the checksum that fits it: damage that only the encryption tells."""
    row = con.execute(
        f"SELECT {COLUMNS} FROM memory_records WHERE generation = ? AND key = ?", (generation, key)
    ).fetchone()
    con.execute(
        "UPDATE memory_records SET checksum = ? WHERE generation = ? AND key = ?",
        (RecordCodec(NS).checksum(row), generation, key),
    )


@contextlib.contextmanager
def refused(*words):
    """What is inside raises one sentence with the next step, and these words in it."""
    with pytest.raises(MemoryOpsError) as caught:
        yield caught
    error = caught.value
    assert error.next_step and "\n" not in error.message and "Traceback" not in str(error)
    assert error.message.rstrip().endswith((".", "!")), error.message
    for word in words:
        assert word in str(error), str(error)
