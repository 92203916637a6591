# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Real node_exporter, Prometheus and Alertmanager (Debian's) and ansible-rulebook (PyPI's), each on a free port.

    with NodeExporter(folder) as node, Alertmanager(rulebook_port, token_file) as manager:
        with Prometheus([node.port], manager.port) as prometheus:
            prometheus.query("memops_records")
"""
from __future__ import annotations

import abc
import fcntl
import hashlib
import json
import os
import pathlib
import sys
import typing as t
import urllib.error
import urllib.parse
import urllib.request

import yaml

from tests.support import environments
from tests.support.debian import need
from tests.support.guard import Guarded
from tests.support.s3_server import free_ports

ROOT = pathlib.Path(__file__).resolve().parents[2]
Self = t.TypeVar("Self", bound="HttpServer")


class HttpServer(Guarded):
    """A server that answers on ``port`` once it has started."""

    ready = "/-/ready"
    status = 200  # of a server that is ready

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.port = free_ports(1)[0]

    @abc.abstractmethod
    def command(self) -> list[str]:
        """What starts it."""

    def write(self, name: str, content: t.Any) -> str:
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            yaml.safe_dump(content, file)
        return path

    def start(self: Self, timeout: float = 300.0) -> Self:
        self.run(self.command())
        self.wait_until(lambda: self.answer(self.ready)[0] == self.status, type(self).__name__, timeout)
        return self

    def answer(self, path: str, body: t.Any = None, **headers: str) -> tuple[int, bytes]:
        """(HTTP status, body); 0: nobody listens."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def __enter__(self: Self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()


class NodeExporter(HttpServer):
    """Its textfile collector alone, on ``folder``."""

    ready = "/metrics"

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__("node-exporter")
        self.folder = folder

    def command(self) -> list[str]:
        binary = need("prometheus-node-exporter", "prometheus-node-exporter")
        only = ["--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={self.folder}"]
        return [binary, f"--web.listen-address=127.0.0.1:{self.port}", *only]


class Alertmanager(HttpServer):
    """With the repository's own configuration; its webhook is at the port ``rulebook``, the token in ``token_file``."""

    def __init__(self, rulebook: int, token_file: pathlib.Path) -> None:
        super().__init__("alertmanager")
        self.rulebook, self.token_file = rulebook, token_file

    def command(self) -> list[str]:
        text = (ROOT / "monitoring" / "alertmanager.yml").read_text(encoding="utf-8")
        places = {"127.0.0.1:5050": f"127.0.0.1:{self.rulebook}", "/etc/memops/alert.token": str(self.token_file)}
        for place, here in places.items():
            assert place in text
            text = text.replace(place, here)
        config = self.write("alertmanager.yml", yaml.safe_load(text))
        binary = need("prometheus-alertmanager", "prometheus-alertmanager")
        alone = ["--cluster.listen-address=", f"--storage.path={self.directory}/data"]
        return [binary, f"--config.file={config}", f"--web.listen-address=127.0.0.1:{self.port}", *alone]


class Prometheus(HttpServer):
    """Scrapes ``targets`` (ports) and evaluates the repository's rules every second."""

    def __init__(self, targets: t.Sequence[int], alertmanager: int) -> None:
        super().__init__("prometheus")
        self.targets, self.alertmanager = targets, alertmanager

    def command(self) -> list[str]:
        def static(ports: t.Sequence[int]) -> dict[str, t.Any]:
            return {"static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}

        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ROOT / "monitoring" / "rules.yml")],
            "scrape_configs": [{"job_name": "node", **static(self.targets)}],
            "alerting": {"alertmanagers": [static([self.alertmanager])]},
        }
        path = self.write("prometheus.yml", config)
        binary = need("prometheus", "prometheus")
        own = [f"--web.listen-address=127.0.0.1:{self.port}", f"--storage.tsdb.path={self.directory}/data"]
        return [binary, f"--config.file={path}", *own]

    def query(self, expression: str) -> list[dict[str, t.Any]]:
        """What an instant query finds. Errors: AssertionError for one that Prometheus cannot parse."""
        status, body = self.answer("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        assert status == 200, body.decode()
        return t.cast("list[dict[str, t.Any]]", json.loads(body)["data"]["result"])


class Rulebook(HttpServer):
    """The collection's rulebook by ansible-rulebook; without a ``token`` none is set."""

    ready = "/alerts"
    status = 401

    def __init__(self, inventory: pathlib.Path, token: str) -> None:
        super().__init__("rulebook")
        self.inventory, self.token = inventory, token

    def command(self) -> list[str]:
        values = {"memops_alert_port": self.port}
        variables = self.write("vars.yml", {**values, **({"memops_alert_token": self.token} if self.token else {})})
        need("default-jre-headless", "java")
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        own = [f"PATH={path}", f"HOME={self.inventory.parent}", "ANSIBLE_NOCOLOR=1", "ANSIBLE_LOCALHOST_WARNING=0"]
        own += [f"ANSIBLE_COLLECTIONS_PATH={ROOT / '.ansible' / 'collections'}", "LC_ALL=C.UTF-8"]
        own += [f"ANSIBLE_CONFIG={ROOT / 'tests' / 'support' / 'ansible.cfg'}"]
        own += [f"ANSIBLE_HOME={self.inventory.parent / 'ansible'}"]  # as the site's scheduled jobs have it
        named = ["--rulebook", "memops.agent_memory.alerts"]
        return ["env", *own, *ansible_rulebook(), *named, "--inventory", str(self.inventory), "--vars", variables]

    def tell(self, *alerts: dict[str, t.Any], token: str | None = None) -> int:
        """As Alertmanager does; the HTTP status."""
        bearer = {"Authorization": f"Bearer {self.token if token is None else token}"}
        return self.answer("/alerts", {"version": "4", "alerts": alerts}, **bearer)[0]

    def whole(self) -> str:
        """All that it said."""
        return pathlib.Path(self.log).read_text(encoding="utf-8", errors="replace")


def ansible_rulebook() -> list[str]:
    """The command, in an environment of its own beside that of the tests; made when it is missing or outdated."""
    requirements = pathlib.Path(__file__).with_name("eda_requirements.txt")
    wanted = hashlib.sha256((requirements.read_text(encoding="utf-8") + sys.version).encode()).hexdigest()[:12]
    venv = ROOT / ".venv" / f"eda-{wanted}"
    with open(ROOT / ".venv" / "eda.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests that run side by side
        if not (venv / ".ready").exists():
            environments.make(venv, "-r", str(requirements))
            (venv / ".ready").touch()
    # By the module: the scripts of an environment name the folder in which it was made.
    return [str(venv / "bin" / "python"), "-m", "ansible_rulebook"]
