# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The EXAMPLES of every module, run by ansible-playbook on real stores, in the order of an incident.

Only places and ids are exchanged for those of the test; a module whose examples are not in ORDER fails the test.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import typing as t

import yaml

from ansible_collections.memops.agent_memory.plugins.module_utils._application_ciphers import Eax
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from tests.support.aws_server import AwsServer
from tests.support.haproxy_server import HAProxyServer, Talker
from tests.support.otlp_metrics import OtlpMetrics
from tests.support.playbooks import CONFIG, share_packages
from tests.support.postgresql_server import PostgresqlServer, Standby
from tests.support.stores import keyring_params

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = ROOT / "plugins" / "modules"
PREFIX = "memops.agent_memory."
# fmt: off
ORDER = [
    "store_info", "dispatch", "snapshot", "snapshot_info", "snapshot_verify", "metrics", "preflight", "isolate",
    "forensic", "diagnose", "plan", "apply", "validate", "release", "monitor", "route", "promote", "second_isolate",
    "standby", "failback", "undo", "rotate_keys", "second_release", "restore", "snapshot_export", "snapshot_hold",
    "snapshot_retention", "snapshot_undelete", "store_retention", "scrub", "snapshot_accept", "keyring_rewrap",
    "snapshot_rewrap", "drill", "doctor", "note_step", "notify", "report",
]
# fmt: on
REPLICATED = ["replication_info", "failover_store", "rejoin"]  # on two servers, one the other's replica
OWN = {"forensic", "second_isolate", "second_release", "standby"}  # steps of the test between the examples

Task = t.Dict[str, t.Any]


def examples(module: str) -> list[Task]:
    tree = ast.parse((MODULES / f"{module}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "EXAMPLES":
            return t.cast("list[Task]", yaml.safe_load(ast.literal_eval(node.value)))
    raise AssertionError(f"{module} has no EXAMPLES")


def place(value: t.Any, places: t.Mapping[str, str]) -> t.Any:
    """``value`` with every place of the documentation exchanged for that of the test."""
    if isinstance(value, dict):
        return {key: place(item, places) for key, item in value.items()}
    if isinstance(value, list):
        return [place(item, places) for item in value]
    return places.get(value, value) if isinstance(value, str) else value


def between(name: str, common: Task, secondary: Task) -> list[Task]:
    """What an operator does between two examples."""
    here, there = {**common, "namespace": "agent-7"}, {**secondary, "namespace": "agent-7"}
    if name == "forensic":
        return [task("Keep the evidence", "snapshot", {**common, "namespaces": ["agent-7"], "purpose": "forensic"})]
    if name == "second_isolate":
        return [{**task("Isolate again", "isolate", here), "register": "isolated"}]
    if name == "second_release":
        return [
            task("Release by force", "release", {**here, "force": True}),
            task("Back up what came home", "snapshot", common),
        ]
    failback = {**secondary, "namespaces": ["agent-7"], "purpose": "failback"}
    return [
        task("Stand back", "promote", {**there, "state": "standby"}),
        {**task("Copy what the secondary holds", "snapshot", failback), "register": "taken"},
    ]


def task(name: str, module: str, arguments: Task) -> Task:
    return {"name": name, PREFIX + module: arguments}


def example_tasks(name: str, places: t.Mapping[str, str], secondary: Task, reports: str) -> list[Task]:
    tasks = [place(one, places) for one in examples(name)]
    for one in tasks:
        one.pop("delegate_to", None)
        arguments = one[PREFIX + name]
        if name == "monitor":
            arguments.update(seconds=1, interval=0.5)
            one["failed_when"] = False  # nobody reads here: could-not-verify, as it should be
        elif name == "undo":
            one["failed_when"] = False  # the rebuild was soft: there is nothing to go back to
        elif name == "promote":
            arguments.update(secondary)  # the example is delegated to that host
        elif name == "isolate" and "since" in arguments:
            arguments.update(since="2026-01-05T10:00:00Z", until="2100-01-01T00:00:00Z")  # what was written here
        elif name == "restore" and "keys" in arguments:
            arguments["incident"] = "{{ isolated.incident }}"  # still open: its watch had no data
        elif name in ("note_step", "notify"):
            arguments["report_dir"] = reports
    if name == "snapshot_info":
        tasks[0]["register"] = "newest"
    if name == "promote":
        fill = {**secondary, "namespaces": ["agent-7"], "as_secondary": True, "create": True}
        tasks.insert(0, task("Fill the secondary", "restore", fill))
    return tasks


def run_play(home: pathlib.Path, tasks: list[Task]) -> subprocess.CompletedProcess[str]:
    share_packages(home / "ansible")
    play = [{"hosts": "all", "gather_facts": False, "tasks": tasks}]
    (home / "play.yml").write_text(yaml.safe_dump(play, sort_keys=False), encoding="utf-8")
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": CONFIG,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
        "ANSIBLE_HOME": str(home / "ansible"),
        "ANSIBLE_NOCOLOR": "1",
        "AWS_CONFIG_FILE": str(home / "aws"),
    }
    command = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", "localhost,", "-c", "local"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", str(home / "play.yml")]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environment, cwd=home)


@contextlib.contextmanager
def routes(home: pathlib.Path) -> t.Iterator[dict[str, str]]:
    """Two instances of HAProxy and a zone of Route 53 (moto's), as the examples of the module route have them."""
    with contextlib.ExitStack() as stack:
        talkers = {name: stack.enter_context(contextlib.closing(Talker(name))) for name in ("valkey-1", "valkey-2")}
        servers = {name: talker.port for name, talker in talkers.items()}
        one, two = (stack.enter_context(HAProxyServer({"memory": servers}, backup=["valkey-2"])) for _n in range(2))
        aws = stack.enter_context(AwsServer())
        zone = aws.client("route53").create_hosted_zone(Name="example.com", CallerReference=aws.unique())
        keys = "aws_access_key_id = test\naws_secret_access_key = test\n"
        profile = f"[profile operations]\n{keys}endpoint_url = {aws.endpoint}\n"
        (home / "aws").write_text(profile, encoding="utf-8")
        yield {
            "/run/haproxy/admin.sock": one.socket,
            "127.0.0.1:9999": two.address,
            "Z0123456789ABCDEFGHIJ": zone["HostedZone"]["Id"].rpartition("/")[2],
        }
        assert [proxy.reached() for proxy in (one, two)] == ["valkey-2", "valkey-2"]


def checkpoints(home: pathlib.Path) -> dict[str, str]:
    """A file as LangGraph's SqliteSaver makes it, with one encrypted value, and two keys."""
    old, new = "o" * 32, "n" * 32
    (home / "langgraph.key").write_text(old, encoding="ascii")
    (home / "langgraph-new.key").write_text(new, encoding="ascii")
    with contextlib.closing(sqlite3.connect(home / "checkpoints.db")) as con:
        space = "thread_id TEXT, checkpoint_ns TEXT, checkpoint_id TEXT"
        key = "PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id"
        con.execute(
            f"CREATE TABLE checkpoints ({space}, parent_checkpoint_id TEXT, type TEXT, checkpoint BLOB, metadata BLOB, "
            f"{key}))"
        )
        con.execute(
            f"CREATE TABLE writes ({space}, task_id TEXT, task_path TEXT, idx INTEGER, channel TEXT, type TEXT, "
            f"value BLOB, {key}, task_id, idx))"
        )
        value = Eax(old.encode()).seal(b"said")
        con.execute("INSERT INTO checkpoints VALUES ('ann', '', '1', NULL, 'msgpack+aes', ?, '{}')", (value,))
        con.commit()
    return {
        "/var/lib/agents/checkpoints.db": str(home / "checkpoints.db"),
        "/etc/memops/langgraph.key": str(home / "langgraph.key"),
        "/etc/memops/langgraph-new.key": str(home / "langgraph-new.key"),
    }


def test_every_module_has_its_examples_in_the_order() -> None:
    assert {path.stem for path in MODULES.glob("[!_]*.py")} == {*ORDER, *REPLICATED} - OWN


def test_examples_run(tmp_path: pathlib.Path) -> None:
    keyring = keyring_params(tmp_path)
    store = {"engine": "sqlite", "path": str(tmp_path / "memory.db")}
    (tmp_path / "agent.log").write_text("started\n", encoding="utf-8")
    (tmp_path / "benchmark.jsonl").write_text('{"key": "key-0001", "expect": {"n": 1}}\n', encoding="utf-8")
    places = {
        "/var/lib/agents/memory.db": store["path"],
        "/var/lib/agents/secondary.db": str(tmp_path / "secondary.db"),
        "s3://agent-memory/production": f"file://{tmp_path}/repository",
        "/etc/memops/keyring.json": keyring["path"],
        "/etc/memops/master.key": keyring["master_key_file"],
        "/etc/memops/master-new.key": keyring_params(tmp_path, "new")["master_key_file"],
        "/etc/memops/agent-7.benchmark.jsonl": str(tmp_path / "benchmark.jsonl"),
        "/etc/memops/route.json": str(tmp_path / "route.json"),
        "/var/log/agents/agent-7.log": str(tmp_path / "agent.log"),
        "/srv/export/agent-memory": str(tmp_path / "export"),
        "/var/lib/node_exporter/memops.prom": str(tmp_path / "memops.prom"),
        "/var/lib/memops/spool": str(tmp_path / "spool"),
        "/srv/reports": str(tmp_path / "reports"),
        "20260105T101500Z-1f2e3d4c": "{{ newest.snapshots[0].snapshot }}",
        "20260105T102000Z-9a8b7c6d": "{{ taken.snapshot }}",
        **checkpoints(tmp_path),
    }
    with Memory(store=store, keyring=keyring) as memory:
        many = [(f"key-{n:04}", {"n": n}) for n in range(300)]
        memory.write_many("agent-7", [*many, ("profile", "p"), ("preferences", "q"), ("user-1", "u")])
        for n in range(150):
            memory.read("agent-7", f"key-{n:04}")
    route = {"format": 1, "generation": 1, "default": store, "namespaces": {}}
    (tmp_path / "route.json").write_text(json.dumps(route), encoding="utf-8")
    common = {"store": store, "repository": {"url": places["s3://agent-memory/production"]}, "keyring": keyring}
    secondary = {**common, "store": {**store, "path": places["/var/lib/agents/secondary.db"]}}
    tasks: list[Task] = []
    for name in ORDER:
        if name in OWN:
            tasks += between(name, common, secondary)
        else:
            tasks += example_tasks(name, places, secondary, str(tmp_path / "reports"))
    with routes(tmp_path) as more, OtlpMetrics() as receiver:
        done = run_play(tmp_path, place(tasks, {**more, "http://127.0.0.1:4318": receiver.url}))
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert len(receiver.told) == 1
    with contextlib.closing(sqlite3.connect(places["/var/lib/agents/checkpoints.db"])) as con:
        assert Eax(b"n" * 32).open(con.execute("SELECT checkpoint FROM checkpoints").fetchone()[0]) == b"said"
    ran = {line[6:].split("]")[0] for line in done.stdout.splitlines() if line.startswith("TASK [")}
    assert {one["name"] for one in tasks} <= ran


def test_examples_of_replication_run(tmp_path: pathlib.Path) -> None:
    keyring = keyring_params(tmp_path)
    settings = ("wal_keep_size = 64MB", "wal_retrieve_retry_interval = 200ms")
    with PostgresqlServer(*settings) as first, Standby(first, *settings) as second:
        open_store(first.store(), create=True).close()
        with Memory(store=first.application(), keyring=keyring, create=True) as memory:
            memory.write("agent-7", "profile", "p", reason="test")
        second.wait_for(first)
        (tmp_path / "password").write_text(first.store()["password"], encoding="utf-8")
        host = first.on_host()
        places = {
            "postgresql://db-1.example.com/memory": first.url,
            "postgresql://db-2.example.com/memory": second.url,
            "s3://agent-memory/production": f"file://{tmp_path}/repository",
            "/etc/memops/password": str(tmp_path / "password"),
            "/etc/memops/keyring.json": keyring["path"],
            "/etc/memops/master.key": keyring["master_key_file"],
            "/etc/memops/replicator.password": host["replication_password_file"],
            "/var/lib/postgresql/17/main": host["data_directory"],
            "/usr/lib/postgresql/17/bin": host["binaries"],
        }
        tasks = [one for name in REPLICATED for one in example_tasks(name, places, {}, "")]
        tasks[-1][PREFIX + "rejoin"]["store"]["server"].pop("service")  # pg_ctl does it: systemd runs no test's server
        done = run_play(tmp_path, tasks)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert done.stdout.count("changed: [localhost]") == 2
        with first.connect() as one, second.connect() as other:
            roles = [con.execute("SELECT pg_is_in_recovery()").fetchone()[0] for con in (one, other)]
        assert roles == [True, False]


def test_a_play_whose_task_errs_is_noticed(tmp_path: pathlib.Path) -> None:
    strange = {**task("Ask for what there is not", "store_info", {"strange": 1}), "ignore_errors": True}
    nobody = task("Ask nobody", "store_info", {"store": {"path": str(tmp_path / "no.db")}})
    done = run_play(tmp_path, [strange, nobody])
    assert done.returncode == 2
    assert "Unsupported parameters for (memops.agent_memory.store_info) module: strange." in done.stdout + done.stderr
    assert "Next:" in done.stdout + done.stderr
    assert not (tmp_path / "no.db").exists()
