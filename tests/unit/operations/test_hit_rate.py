# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The hit rate of an application that keeps no access log here: from a real Prometheus, over TLS with a login, from its
own spans, and every way in which there is no number."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
import typing as t
import urllib.parse

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import InvalidInput
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import monitor
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.hit_rate import (
    Measured,
    judged,
    source_of,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from tests.support.alert_servers import HttpServer
from tests.support.certificates import Authority
from tests.support.debian import need
from tests.support.s3_server import free_ports
from tests.unit.operations.runbook import NS, OTHER, Site, attempt
from tests.unit.operations.test_application_spans import Application

PASSWORD = "abcdefghijklmnopqrstuvwxyz"
BCRYPT = "$2a$06$.rCVZVOThsIa97pEDOxvGuRRgzG64bvtJ0938xuqzv18d3ZpQhstC"  # of it
METRICS = f"""
memory_hit_rate{{namespace="{NS}"}} 0.93
memory_hit_rate{{namespace="{OTHER}"}} 0.42
memory_hit_rate{{namespace="odd \\"name\\" \\\\"}} 0.5
memory_hits_total 96
memory_reads_total 128
nothing_total 0
percent 93
"""


class Exporter:
    """The application's own metrics, until it falls silent."""

    def __init__(self) -> None:
        self.silent = False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(503 if outer.silent else 200)
                self.end_headers()
                self.wfile.write(b"" if outer.silent else METRICS.encode())

            def log_message(self, *_args: t.Any) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.port = self.server.server_address[1]


class Scraping(HttpServer):
    """Prometheus with TLS and a login where they are given; it scrapes one application."""

    def __init__(self, port: int, web: dict[str, t.Any] | None = None) -> None:
        super().__init__("prometheus")
        self.scraped, self.web = port, web

    def command(self) -> list[str]:
        scrape = {"job_name": "agent", "static_configs": [{"targets": [f"127.0.0.1:{self.scraped}"]}]}
        config = self.write("prometheus.yml", {"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]})
        own = [f"--config.file={config}", f"--web.listen-address=127.0.0.1:{self.port}"]
        if self.web is not None:
            own.append("--web.config.file=" + self.write("web.yml", self.web))
        return [need("prometheus", "prometheus"), *own, f"--storage.tsdb.path={self.directory}/data"]


class Secured(Scraping):
    ready, status = "/", 400  # it is asked without TLS


@pytest.fixture(scope="module")
def exporter() -> t.Iterator[Exporter]:
    one = Exporter()
    yield one
    one.server.shutdown()


@pytest.fixture(scope="module")
def prometheus(exporter: Exporter) -> t.Iterator[Scraping]:
    with Scraping(exporter.port) as server:
        end = time.monotonic() + 300
        while ask(server).value is None and time.monotonic() < end:
            time.sleep(0.1)
        yield server


def ask(server: Scraping, namespace: str = NS, since: int = 0, **given: t.Any) -> Measured:
    source = source_of({"kind": "prometheus", "url": f"http://127.0.0.1:{server.port}", **given}, namespace, "main")
    assert source is not None
    return source.measure(since, now_us())


def test_a_number_that_prometheus_has(prometheus: Scraping) -> None:
    assert ask(prometheus).value == 0.93
    assert ask(prometheus, 'odd "name" \\').value == 0.5
    ratio = "sum(memory_hits_total) / sum(memory_reads_total)"
    assert ask(prometheus, query=ratio).value == 0.75
    assert ask(prometheus, query="scalar(memory_hits_total) / 128").value == 0.75
    window = "max_over_time(memory_hit_rate{namespace='agent-7'}[{window}])"
    assert ask(prometheus, since=now_us() - 60_000_000, query=window).value == 0.93
    assert judged(ask(prometheus), 0.8)["verdict"] == "pass"
    low = judged(ask(prometheus, OTHER), 0.8)
    assert (low["verdict"], low["source"], low["why"]) == ("fail", "prometheus", "42.0% by prometheus, 80% is needed")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"query": "memory_hit_rate"}, "3 series, and one is needed"),
        ({"query": "memory_hit_rate{namespace='none'}"}, "finds no series"),
        ({"query": "nothing_total / nothing_total"}, "value is nan: nothing was counted"),
        ({"query": "percent"}, "gives 93, which is no share"),
        ({"query": "memory_hits_total[1m]"}, "gives a matrix"),
        ({"query": "sum("}, "cannot answer the query: .*parse error"),
        ({"url": "http://127.0.0.1:{port}/below"}, "has no /api/v1/query below that address"),
        ({"url": "http://127.0.0.1:{free}"}, "cannot be asked: .*refused"),
        ({"url": "https://127.0.0.1:{port}"}, "cannot be asked"),
        ({"ca_bundle": "/none.pem", "url": "https://127.0.0.1:{port}"}, "cannot be asked: .*No such file"),
    ],
)
def test_where_there_is_no_number_it_says_why(prometheus: Scraping, given: dict[str, str], why: str) -> None:
    places = {"{port}": str(prometheus.port), "{free}": str(free_ports(1)[0])}
    for place, here in places.items():
        given = {name: text.replace(place, here) if name == "url" else text for name, text in given.items()}
    found = ask(prometheus, **given)
    assert found.value is None
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(found.why)
    assert judged(found, 0.8)["verdict"] == "could-not-verify"


def test_a_sample_from_before_the_release_or_of_an_application_that_fell_silent_is_none(
    prometheus: Scraping, exporter: Exporter
) -> None:
    assert "before the release" in ask(prometheus, since=now_us() + 60_000_000).why
    query = 'last_over_time(memory_hit_rate{namespace="agent-7"}[10m])'
    exporter.silent = True
    try:
        end = time.monotonic() + 300
        while "no series" not in ask(prometheus).why and time.monotonic() < end:
            time.sleep(0.1)
        assert "no series" in ask(prometheus).why  # Prometheus itself takes it back at once
        assert ask(prometheus, query=query).value == 0.93
    finally:
        exporter.silent = False
    while ask(prometheus).value is None:
        time.sleep(0.1)
    assert "s old, more than 0.001 s" in ask(prometheus, max_age=0.001).why


def test_over_tls_with_a_user(tmp_path: t.Any, exporter: Exporter) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    certificate, key = authority.certificate("127.0.0.1")
    web = {"tls_server_config": {"cert_file": certificate, "key_file": key}, "basic_auth_users": {"ops": BCRYPT}}
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    with Secured(exporter.port, web) as server:
        there = {"url": f"https://127.0.0.1:{server.port}", "ca_bundle": authority.ca, "user": "ops"}
        query = {"query": "scalar(vector(0.9))"}  # it need not have scraped yet
        assert ask(server, **there, **query, password=PASSWORD).value == 0.9
        assert ask(server, **there, **query, password_file=str(file)).value == 0.9
        assert "refuses the login (HTTP 401)" in ask(server, **there, **query, password="wrong").why
        assert "certificate verify failed" in ask(server, **{**there, "ca_bundle": other.ca}, **query).why
        assert "certificate verify failed" in ask(server, url=there["url"], **query).why


def test_with_a_token_which_goes_to_the_named_address_alone(prometheus: Scraping) -> None:
    seen: list[str | None] = []

    class Gate(http.server.BaseHTTPRequestHandler):
        """A proxy that wants a token, before the real Prometheus."""

        def do_POST(self) -> None:
            seen.append(self.headers["Authorization"])
            body = self.rfile.read(int(self.headers["Content-Length"]))
            away = self.path.startswith("/moved")
            self.send_response(307 if away else 200)
            self.send_header("Location", f"http://127.0.0.1:{prometheus.port}/api/v1/query")
            self.end_headers()
            if not away:
                query = urllib.parse.parse_qs(body.decode())
                form = urllib.parse.urlencode({name: values[0] for name, values in query.items()})
                self.wfile.write(prometheus.answer(f"/api/v1/query?{form}")[1])

        def log_message(self, *_args: t.Any) -> None: ...

    gate = http.server.HTTPServer(("127.0.0.1", 0), Gate)
    threading.Thread(target=gate.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{gate.server_address[1]}"
    try:
        found = ask(prometheus, url=url + "/behind/", token="s3cret-token")
        assert found.value == 0.93 and seen == ["Bearer s3cret-token"] * 2
        moved = ask(prometheus, url=url + "/moved", token="s3cret-token")
        assert "leads to another address (HTTP 307), which is not followed" in moved.why
        assert "s3cret" not in repr(found) + repr(moved)
    finally:
        gate.shutdown()


def spans(folder: t.Any, hits: int, misses: int, silent: int = 0, at: int | None = None) -> str:
    application = Application()
    for number in range(hits + misses):
        count = {"gen_ai.memory.record.count": int(number < hits)}
        application.did("search_memory", at=at or now_us(), **count, **{"memory.namespace": NS})
    for _number in range(silent):  # they do not say whether they found something
        application.did("search_memory", at=at or now_us(), **{"memory.namespace": NS})
    path = os.path.join(str(folder), "spans.json")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(application.json())
    return path


def by_spans(path: str, since: int = 0) -> Measured:
    source = source_of({"kind": "spans", "spans": [path]}, NS, "main")
    assert source is not None
    return source.measure(since, now_us())


def test_the_applications_own_spans_tell_it(tmp_path: t.Any) -> None:
    path = spans(tmp_path, 90, 30, silent=40)
    found = by_spans(path)
    assert (found.source, found.value, found.reads) == ("spans", 0.75, 120)
    assert by_spans(path, since=now_us()).value is None  # of the time before the release
    few = by_spans(spans(tmp_path, 99, 0))
    assert few.value is None and "99 searches" in few.why
    assert "could not be read from /none" in by_spans("/none").why
    assert judged(few, 0.8)["verdict"] == judged(None, 0.8)["verdict"] == "could-not-verify"
    assert judged(None, 0.8)["source"] is None


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"kind": "guess"}, "one of: prometheus, spans"),
        ({"kind": "spans"}, "names no spans"),
        ({"kind": "spans", "spans": ["relative.json"]}, "absolute path"),
        ({"kind": "prometheus"}, "names no Prometheus"),
        ({"kind": "prometheus", "url": "ftp://host"}, "no http:// or https:// address"),
        ({"kind": "prometheus", "url": "http://me:pw@host"}, "without a login"),
        ({"kind": "prometheus", "url": "http://host:port"}, "no http:// or https:// address"),
        ({"kind": "prometheus", "url": "http://host", "token": "a", "user": "b"}, "not both"),
        ({"kind": "prometheus", "url": "http://host", "token": "a", "token_file": "/b"}, "both token and token_file"),
        ({"kind": "prometheus", "url": "http://host", "token_file": "/none"}, "cannot be read: No such file"),
        ({"kind": "prometheus", "url": "http://host", "token": "a\r\nX-Evil: 1"}, "line break"),
        ({"kind": "prometheus", "url": "http://host", "timeout": 0}, "timeout is 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_says_what_to_do(given: dict[str, t.Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as found:
        source_of(given, NS, "main")
    assert found.value.next_step and "X-Evil" not in str(found.value)
    assert source_of({}, NS, "main") is None


class Clock:
    """Time that passes only while the monitor sleeps."""

    def __init__(self) -> None:
        self.now = now_us()

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 1e6)


class Told:
    """A source that gives these, one after the other, and then the last one."""

    source, settle, seconds = "prometheus", 30.0, 20.0

    def __init__(self, *found: Measured) -> None:
        self.found = list(found)

    def measure(self, since: int, now: int) -> Measured:
        return self.found.pop(0) if len(self.found) > 1 else self.found[0]


def share(value: float | None, at: int | None = None, why: str = "") -> Measured:
    return Measured("prometheus", value, why, at=at)


@pytest.mark.parametrize(
    ("told", "verdict", "said"),
    [
        ([share(0.95)], "pass", ""),
        ([share(0.2, at=0), share(0.95)], "pass", ""),  # it still covered the quarantine
        ([share(0.95), share(0.79)], "fail", "hit rate 79.0% by prometheus is below 80%"),
        ([share(0.95), share(None, why="no series")], "could-not-verify", "no data from prometheus: no series"),
        ([share(0.95, at=0)], "could-not-verify", "nothing was sampled later than 30 s after the release"),
    ],
)
def test_a_watch_goes_by_it_and_a_breach_puts_the_fence_back(
    tmp_path: t.Any, told: list[Measured], verdict: str, said: str
) -> None:
    site = Site(tmp_path)
    with site.memory() as memory:
        memory.write(NS, "one", {"n": 1}, "test")
    with site.open() as store:
        held = store.claim(NS, attempt().attempt, "the test", new_incident="inc-1")
        clock = Clock()
        found = monitor.monitor(
            store_params=site.store, keyring=site.keyring, claim=held, namespace=NS,
            deadline=clock.now + 120_000_000, interval=10, clock=clock, sleep=clock.sleep, rate=Told(*told),
        )  # fmt: skip
    json.dumps(found)
    assert (found["verdict"], found["hit_rate"]["source"]) == (verdict, "prometheus")
    assert said in "; ".join(found["reasons"])
    assert site.state() == ("quarantined" if verdict == "fail" else "serving")


def test_validate_asks_about_what_is_served_and_not_in_quarantine(tmp_path: t.Any) -> None:
    site = Site(tmp_path)
    with site.memory() as memory:
        memory.write(NS, "one", {"n": 1}, "test")
    site.backup()
    for hits, verdict in ((95, "pass"), (10, "fail"), (0, "could-not-verify")):
        source = {"kind": "spans", "spans": [spans(tmp_path, hits, 100 - hits if hits else 0)]}
        found = site.step("validate", attempt(), hit_rate_source=source)
        assert (found["verdict"], found["hit_rate"]["verdict"]) == (verdict, verdict), found["reasons"]
        assert found["hit_rate"]["source"] == "spans"
    run = attempt()
    site.step("isolate", run)
    found = site.step("validate", run, hit_rate_source={**source, "spans": ["/none"]}, check=True)
    assert found["hit_rate"]["source"] is None and not any("hit_rate" in why for why in found["reasons"])
