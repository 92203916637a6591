# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A real Valkey Cluster of processes on this machine: three primaries with a third of the slots each, and one replica.

    with ValkeyCluster() as cluster:
        params = cluster.store("{memops-a}")
"""
from __future__ import annotations

import contextlib
import secrets
import time
import typing as t

from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from tests.support.certificates import Authority
from tests.support.s3_server import free_ports
from tests.support.valkey_server import APPLICATION, OWNER, ValkeyServer, Watchful

SETTINGS = ("cluster-enabled yes", f"cluster-node-timeout {Watchful.ALERT}", "cluster-replica-validity-factor 0",
            "repl-diskless-sync-delay 0", "repl-ping-replica-period 1")  # fmt: skip
THIRDS = ((0, 5460), (5461, 10922), (10923, 16383))


class Node(ValkeyServer):
    """With ``authority`` clients may come by TLS, too, and the nodes talk by it."""

    def __init__(self, passwords: dict[str, str], binary: str = "", authority: Authority | None = None) -> None:
        bus, self.tls_port = free_ports(2)
        super().__init__(*SETTINGS, f"cluster-port {bus}", "cluster-config-file nodes.conf", binary=binary)
        self.passwords, self._authority = passwords, authority

    def start(self, timeout: float = 300.0) -> ValkeyServer:
        if self._authority is not None:
            certificate, key = self._authority.certificate("127.0.0.1", self.directory)
            self.settings += (
                f"tls-port {self.tls_port}", "tls-cluster yes", "tls-replication yes", "tls-auth-clients no",
                f"tls-cert-file {certificate}", f"tls-key-file {key}", f"tls-ca-cert-file {self._authority.ca}",
            )  # fmt: skip
        return super().start(timeout)

    def execute(self, *args: t.Any) -> t.Any:
        with self.client() as client:
            return client.execute_command(*args)

    @property
    def id(self) -> str:
        return str(self.execute("CLUSTER", "MYID").decode())

    @property
    def bus(self) -> str:
        return next(line for line in self.settings if line.startswith("cluster-port")).split()[1]


class ValkeyCluster(Watchful):
    """``primaries`` as they began, and the one ``replica`` of the first. ``binary``: another server than Valkey;
    ``authority``: stores are reached by TLS."""

    calm = 6000

    def __init__(self, binary: str = "", authority: Authority | None = None) -> None:
        self.authority = authority
        self.passwords = {name: secrets.token_hex(12) for name in (OWNER, APPLICATION)}
        self.nodes = [Node(self.passwords, binary, authority) for _number in range(4)]
        self.primaries, self.replica = self.nodes[:3], self.nodes[3]

    def __enter__(self) -> ValkeyCluster:
        try:
            for node in self.nodes:
                node.start()
            for node, (low, high) in zip(self.primaries, THIRDS):
                node.execute("CLUSTER", "ADDSLOTSRANGE", low, high)
            for number, node in enumerate(self.nodes):
                node.execute("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for node in self.nodes[1:]:
                self.nodes[0].execute("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus)
            self.until(lambda: all(len(self.known(node)) == 4 for node in self.nodes))
            self.replica.execute("CLUSTER", "REPLICATE", self.primaries[0].id)
            self.until(lambda: all(self.up(node) for node in self.nodes) and self.follows(self.replica))
            # a node shows a replica among its slots only once it has heard from it
            self.until(lambda: all(self.shown(node) for node in self.nodes))
            self._miss_after(self.calm)  # until here they tell each other the sooner
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for node in self.nodes:
            node.stop()

    def _miss_after(self, milliseconds: int) -> None:
        for node in self.nodes:
            with contextlib.suppress(RedisConnectionError):  # it was killed
                node.execute("CONFIG", "SET", "cluster-node-timeout", milliseconds)

    def fail_over(self, owner: Node, replica: Node) -> None:
        """The replica of a primary that lives takes its place, with the primary's help."""
        for _turn in range(20):
            with contextlib.suppress(ResponseError):  # it leads by now
                replica.execute("CLUSTER", "FAILOVER")
            with contextlib.suppress(RuntimeError):  # who is not done within five seconds gives up
                self.until(lambda: self.leads(replica), 7.0)
                break
        self.until(lambda: self.leads(replica) and self.follows(owner))

    # --- what the nodes say -----------------------------------------------------------------------------------
    @staticmethod
    def known(node: Node) -> list[str]:
        lines = node.execute("CLUSTER", "NODES")
        text = lines if isinstance(lines, dict) else dict.fromkeys(lines.decode().splitlines())
        return [line for line in text if "handshake" not in str(line) + str(text[line])]

    @staticmethod
    def up(node: Node) -> bool:
        said = node.execute("CLUSTER", "INFO")
        return "ok" in str(said.get("cluster_state") if isinstance(said, dict) else said.decode().split("\r\n")[0])

    @staticmethod
    def follows(node: Node) -> bool:
        with node.client() as client:
            info = client.info("replication")
        return info["role"] == "slave" and info["master_link_status"] == "up"

    @staticmethod
    def leads(node: Node) -> bool:
        with node.client() as client:
            return bool(client.info("replication")["role"] == "master")

    @staticmethod
    def until(true: t.Callable[[], bool], seconds: float = 300.0) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                if true():
                    return
            except RedisError:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError("the Cluster did not come so far")
            time.sleep(0.05)

    # --- stores -----------------------------------------------------------------------------------------------
    def tag(self, number: int, name: str = "t") -> str:
        """A prefix whose slot is in the given third."""
        low, high = THIRDS[number]
        return next(
            prefix for n in range(1000) if low <= key_slot((prefix := f"{{{name}{n}}}").encode()) <= high
        )

    def store(self, prefix: str, /, *, at: t.Sequence[Node] = (), **more: t.Any) -> dict[str, t.Any]:
        scheme, ports = "valkey", [node.port for node in at or self.nodes]
        if self.authority is not None:
            scheme, ports = "valkeys", [node.tls_port for node in at or self.nodes]
            more = {"tls_ca": self.authority.ca, **more}
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        return {
            "engine": "valkey", "url": f"{scheme}://{hosts}/0", "user": OWNER, "password": self.passwords[OWNER],
            "application_user": APPLICATION, "prefix": prefix, **more,
        }  # fmt: skip

    def application(self, prefix: str, /, **more: t.Any) -> dict[str, t.Any]:
        return self.store(prefix, **{"user": APPLICATION, "password": self.passwords[APPLICATION], **more})

    def client(self, user: str = OWNER) -> t.Any:
        """A raw client that goes to the right node."""
        from redis.cluster import RedisCluster

        return RedisCluster(
            host="127.0.0.1", port=next(node.port for node in self.nodes if not node.ended()), username=user,
            password=self.passwords[user],
        )  # fmt: skip

    def shown(self, node: Node) -> bool:
        """Whether the node says who follows the first primary."""
        return any(len(part) > 3 for part in node.execute("CLUSTER", "SLOTS") if isinstance(part, list))

    def shard(self, prefix: str, by: Node | None = None) -> tuple[Node, list[Node]]:
        """(the node that serves the prefix's slot, those that follow it), as that node or the first one says."""
        slot = key_slot(prefix.encode())
        asked = by or next(node for node in self.nodes if not node.ended())
        for part in asked.execute("CLUSTER", "SLOTS"):
            low, high, *places = part if isinstance(part, list) else (part, part, [])
            if low <= slot <= high:
                owner, *others = [next(n for n in self.nodes if n.port == place[1]) for place in places]
                return owner, others
        raise RuntimeError(f"no node serves slot {slot}")


class Tagged:
    """The Cluster as the server of a test's Bench: every name is a hash tag."""

    def __init__(self, cluster: ValkeyCluster) -> None:
        self.cluster, self.passwords, self.client = cluster, cluster.passwords, cluster.client

    def reset_users(self) -> None:
        for node in self.cluster.nodes:
            node.reset_users()

    def store(self, prefix: str, /, **more: t.Any) -> dict[str, t.Any]:
        return self.cluster.store(f"{{{prefix}}}", **more)

    def application(self, prefix: str, /, **more: t.Any) -> dict[str, t.Any]:
        return self.cluster.application(f"{{{prefix}}}", **more)
