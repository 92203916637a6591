# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Applications write all the time while their namespace fails over and comes home. Both sides are killed, links to the
servers are cut and healed, and the servers are killed, too.

Afterwards every acknowledged write is there, or a later one of the same application on the same key; nothing that was
never written is; and the side that was fenced took nothing after its fence. MEMOPS_HISTORIES says how often the
namespace goes there and back on each engine, MEMOPS_SEED repeats a run that failed as far as processes can be.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
import traceback

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    NamespaceLocked,
    NamespaceQuarantined,
    StoreMissing,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import integrity
from ansible_collections.memops.agent_memory.plugins.module_utils._route import for_applications, switch_route
from ansible_collections.memops.agent_memory.plugins.module_utils._routes import move, open_route
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from tests.support.engines import ENGINES, Bench
from tests.support.link import Link
from tests.support.postgresql_server import PostgresqlServer
from tests.support.processes import PROCESSES
from tests.support.valkey_server import ValkeyServer
from tests.unit.operations.runbook import NS, attempt
from tests.unit.operations.test_rebuild_failover import Pair

HISTORIES = int(os.environ.get("MEMOPS_HISTORIES", "7"))
WRITERS, KEYS = 3, 6
UNAVAILABLE = 3  # the status of a step that did not reach the store


class Sides(Bench):
    """The home's store on a server of its own, the secondary's on another, each behind a link; SQLite has neither."""

    def __init__(self, engine, folder, stack):
        super().__init__(engine, folder)
        self.servers, self.links = {}, {}
        for name in ("store", "secondary") if engine != "sqlite" else ():
            server = PostgresqlServer() if engine == "postgresql" else ValkeyServer(durable=True)
            for former in self.servers.values():  # applications have one login
                server.passwords = former.passwords
            self.servers[name] = stack.enter_context(server)
            self.links[name] = stack.enter_context(Link(self.servers[name].port))

    def _through(self, name, params):
        return {**params, "url": params["url"].replace(f":{self.servers[name].port}/", f":{self.links[name].port}/")}

    def params(self, name="m", /, **more):
        if not self.servers:
            return super().params(name, **more)
        return self._through(name, self.servers[name].store(f"{name}", **more))

    def application(self, name="m", /, **more):
        if not self.servers:
            return super().application(name, **more)
        return self._through(name, self.servers[name].application(f"{name}", **more))


class Weather:
    """What happens to links and servers, one thing at a time; afterwards all is well again."""

    def __init__(self, sides, rng):
        self.sides, self.rng = sides, rng
        self.done = {"cut": 0, "killed": 0}
        # Each server dies once, in one of the first histories.
        self.deaths = [(name, rng.randrange(max(1, HISTORIES - 1))) for name in sides.servers]

    def blow(self):
        """Perhaps cut a link, and heal it."""
        if not self.sides.links or self.rng.random() < 0.6:
            return
        link = self.sides.links[self.rng.choice(sorted(self.sides.links))]
        time.sleep(self.rng.random() * 0.1)
        link.cut(answers=self.rng.random() < 0.4)
        time.sleep(self.rng.random() * 0.25)
        link.heal(reset=self.rng.random() < 0.6)
        self.done["cut"] += 1

    def strike(self, turn):
        """Kill the servers whose turn it is, and start them again."""
        for name, when in self.deaths:
            if when == turn:
                self.sides.servers[name].kill()
                time.sleep(self.rng.random() * 0.2)
                self.sides.servers[name].again()
                self.done["killed"] += 1


def write_for_ever(route, keyring, number, ledger, seed):
    """An application: its own keys, values that only grow, and a ledger of what it tried (?) and what was done (!).

    A delete that answers that there was no such record did nothing (-).
    """
    rng, n = random.Random(seed), 0
    if os.path.exists(ledger):
        n = max((line[2] for line in lines_of(ledger)), default=0)
    while True:
        with contextlib.suppress(StoreUnavailable):
            memory = Memory(route=route, keyring=keyring, actor=f"writer {number}")
            break
    with open(ledger, "a", encoding="ascii") as stream:
        while True:
            n += 1
            key = f"w{number}-{rng.randrange(KEYS)}"
            kind = "delete" if rng.random() < 0.15 else "write"
            stream.write(f"? {key} {n} {kind}\n")
            stream.flush()
            try:
                done = memory.delete(NS, key) if kind == "delete" else memory.write(NS, key, n) is not False
            except (NamespaceLocked, NamespaceQuarantined, StoreUnavailable) as error:
                with open(f"{ledger}.met", "w", encoding="utf-8") as met:
                    met.write(f"{type(error).__name__}: {error}")
                time.sleep(0.02)
                continue
            stream.write(f"{'!' if done else '-'} {key} {n} {kind}\n")
            stream.flush()
            time.sleep(0.002)


def lines_of(ledger):
    """[(mark, key, n, kind)]; a line that a kill cut short is none."""
    with open(ledger, encoding="ascii") as stream:
        parts = [line.split() for line in stream if line.endswith("\n")]
    return [(part[0], part[1], int(part[2]), part[3]) for part in parts if len(part) == 4]


class Applications:
    def __init__(self, pair, rng):
        self.pair, self.rng, self.processes = pair, rng, {}
        for number in range(WRITERS):
            self.start(number)

    def ledger(self, number):
        return os.path.join(self.pair.home.folder, f"ledger{number}")

    def start(self, number):
        arguments = (self.pair.route, self.pair.home.keyring, number, self.ledger(number), self.rng.random())
        self.processes[number] = PROCESSES.Process(target=write_for_ever, args=arguments, daemon=True)
        self.processes[number].start()

    def kill(self, number):
        self.processes[number].kill()
        self.processes[number].join()

    def done(self):
        """How many writes were acknowledged so far."""
        ledgers = [self.ledger(number) for number in range(WRITERS)]
        return sum(line[0] == "!" for ledger in ledgers if os.path.exists(ledger) for line in lines_of(ledger))

    def go_on(self, count):
        """Until so many more writes were acknowledged."""
        wanted, deadline = self.done() + count, time.monotonic() + 300
        while self.done() < wanted:
            assert time.monotonic() < deadline, ("nobody serves the namespace", self.met())
            assert all(process.is_alive() for process in self.processes.values()), "an application met what it must not"
            time.sleep(0.02)

    def met(self):
        """What the applications met last that was no success."""
        files = [f"{self.ledger(number)}.met" for number in range(WRITERS)]
        return [open(file, encoding="utf-8").read() for file in files if os.path.exists(file)]

    def check(self, served):
        for number in range(WRITERS):
            lines = lines_of(self.ledger(number))
            for key in {key for _mark, key, _n, _kind in lines}:
                mine = [line for line in lines if line[1] == key]
                last = max((n for mark, _key, n, _kind in mine if mark == "!"), default=0)
                # What was tried after the last acknowledged write may have been done, too.
                allowed = {n if kind == "write" else None for _mark, _key, n, kind in mine if n >= last}
                if not last:
                    allowed.add(None)
                assert served.get(key) in allowed, (key, served.get(key), mine[-4:])
        tried = {key for number in range(WRITERS) for _mark, key, _n, _kind in lines_of(self.ledger(number))}
        assert set(served) <= tried


class Operator:
    """Takes steps in processes that may be killed, and takes them again until they end."""

    def __init__(self, pair, rng, weather):
        self.pair, self.rng, self.weather = pair, rng, weather
        self.runs = {side: attempt() for side in ("home", "away")}
        self.killed = self.unreached = 0

    def take(self, side, step):
        """The result of ``step(run)``, by whichever process came to its end."""
        answer = os.path.join(self.pair.home.folder, "answer")
        while True:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(answer)
            child = os.fork()
            if not child:
                code = 1
                try:
                    result = step(self.runs[side])
                    with open(answer, "w", encoding="utf-8") as stream:
                        json.dump(result, stream, default=str)
                    code = 0
                except StoreUnavailable:
                    code = UNAVAILABLE
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
            if self.rng.random() < 0.35:
                time.sleep(self.rng.random() * 0.25)
                os.kill(child, signal.SIGKILL)
            else:
                self.weather.blow()
            status = os.waitpid(child, 0)[1]
            if status == 0:
                with open(answer, encoding="utf-8") as stream:
                    return json.load(stream)
            if os.WIFSIGNALED(status):
                self.killed += 1
            else:
                assert os.WEXITSTATUS(status) == UNAVAILABLE, "the step failed; what it said stands above"
                self.unreached += 1
            self.runs[side] = attempt(takeover=self.holder(side))

    def holder(self, side):
        """The attempt that the store believes at work: whoever of those that were killed came so far."""
        try:
            with getattr(self.pair, side).open() as store:
                return next((one.attempt for one in store.incidents(NS) if one.state == "open"), None)
        except StoreMissing:  # nobody came so far as to make it
            return None


def routed(site):
    """The store as an operator names it, with a file that holds the password of the applications."""
    if "password" not in site.application:
        return site.store
    file = os.path.join(site.folder, f"{site.application['user']}.password")
    with open(file, "w", encoding="utf-8") as stream:
        stream.write(site.application["password"])
    return {**site.store, "application_password_file": file}


def sequence(site):
    with site.open() as store:
        return store.identity().sequence


def there_and_back(pair, operator, applications, rng, turn):
    """One history: filled, failed over, written on the secondary, home again."""
    home, away = pair.home, pair.away
    operator.take("away", pair.warm)
    operator.weather.blow()
    applications.go_on(rng.randrange(20))
    operator.take("home", lambda run: home.step("isolate", run))
    fenced, above = sequence(home), pair.epoch(home)
    promoted = operator.take("away", lambda run: pair.take_over("serving", run, above_epoch=above))
    assert promoted["fit"] and promoted["performed"], promoted
    move(open_route({"path": pair.route}, NS, target=routed(away)))
    applications.go_on(1 + rng.randrange(40))
    operator.weather.strike(turn)
    operator.weather.blow()
    applications.go_on(1 + rng.randrange(40))
    if rng.random() < 0.5:
        victim = rng.randrange(WRITERS)
        applications.kill(victim)
        applications.start(victim)
    operator.take("away", lambda run: pair.take_over("standby", run))
    stood = sequence(away)
    delta = operator.take("away", lambda run: pair.snapshot_of_secondary())
    assert sequence(home) == fenced, "the home took a write behind its fence"
    operator.take("home", lambda run: pair.come_home(delta, promoted["epoch"], run))
    move(open_route({"path": pair.route}, NS))
    operator.take("home", pair.release_home)
    applications.go_on(1 + rng.randrange(10))
    assert sequence(away) == stood, "the secondary took a write when it stood by"
    for site in (home, away):
        with site.open() as store:
            still_open = any(one.state == "open" for one in store.incidents(NS))
        if still_open:
            site.close_incident()
    operator.runs = {side: attempt() for side in operator.runs}


@pytest.fixture(params=ENGINES)
def sides(request, tmp_path):
    with contextlib.ExitStack() as stack:
        yield Sides(request.param, tmp_path, stack)


def test_no_acknowledged_write_is_lost_and_none_is_taken_behind_a_fence(tmp_path, sides):
    seed = int(os.environ.get("MEMOPS_SEED") or random.randrange(1 << 32))
    print(f"MEMOPS_SEED={seed}")
    rng = random.Random(seed)
    pair = Pair(tmp_path / "site", sides)
    with pair.home.memory() as memory:
        memory.write(NS, "w0-0", 0)
    switch_route(pair.route, None, for_applications(routed(pair.home)))
    applications, operator = Applications(pair, rng), Operator(pair, rng, Weather(sides, rng))
    try:
        for turn in range(HISTORIES):
            there_and_back(pair, operator, applications, rng, turn)
    finally:
        for number in range(WRITERS):
            applications.kill(number)
    applications.check(pair.home.served())
    with pair.home.open() as store, store.reader() as reader:
        assert reader.structure() == []
        assert reader.log_health()["intact"]
    scan = integrity.scan(store_params=pair.home.store, keyring=pair.home.ring(), namespace=NS)
    assert scan["verdict"] == "pass", scan
    told = operator.weather.done
    if sides.servers:
        assert told["killed"] == len(sides.servers) and (told["cut"] or HISTORIES < 3)
    print(
        f"{applications.done()} writes, {operator.killed} steps killed, {operator.unreached} did not reach the store, "
        f"links cut {told['cut']} times, servers killed {told['killed']} times"
    )


def test_a_lost_write_is_noticed(tmp_path):
    """The check of these histories can fail."""
    pair = Pair(tmp_path / "site")
    applications = Applications.__new__(Applications)
    applications.pair = pair
    for number in range(WRITERS):
        with open(applications.ledger(number), "w", encoding="ascii") as stream:
            stream.write(f"? w{number}-0 1 write\n! w{number}-0 1 write\n? w{number}-0 2 write\n")
    applications.check({"w0-0": 1, "w1-0": 2, "w2-0": 1})
    lost, never_written, foreign = {"w0-0": 1, "w1-0": 2}, {"w2-0": 3}, {"w2-0": 1, "x": 1}
    for served in (lost, {**lost, **never_written}, {**lost, **foreign}):
        with pytest.raises(AssertionError):
            applications.check(served)
