# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a real store tells of itself as metrics, and what Prometheus' own tools say of them and of the alert rules."""
from __future__ import annotations

import os
import pathlib
import re
import subprocess
import time
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _metrics
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    InvalidInput,
    RecordCorrupt,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._metrics import HELP, Sample
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.collect_metrics import (
    gather,
    log_position,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.evidence import keep
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.holds import hold
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.scrub import scrub
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.snapshot import create
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.verify import verify
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.debian import need
from tests.support.engines import Bench
from tests.support.otlp_metrics import OtlpMetrics
from tests.unit.operations.operations_help import NS, Place

ROOT = pathlib.Path(__file__).resolve().parents[3]
HERE = pathlib.Path(__file__).parent


def promtool(*arguments: str, text: str | None = None) -> str:
    command = [need("prometheus", "promtool"), *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def asked(place: Place, **more: t.Any) -> dict[tuple[str, str], float]:
    """(metric without memops_, namespace) -> value."""
    found = gather(store_params=place.store, cluster="c", host="h", open_keyring=place.ring, **more)
    assert not found.warnings
    assert {(s.labels["cluster"], s.labels["memory_host"]) for s in found.samples} == {("c", "h")}
    return {(s.name[len("memops_") :], s.labels.get("namespace", "")): s.value for s in found.samples}


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Place:
    return Place(tmp_path)


def test_the_rules_fire_when_they_should() -> None:
    files = sorted(HERE.glob("rules*_test.yml"))
    promtool("test", "rules", *map(str, files))
    names = re.findall(r"alert: (\w+)", (ROOT / "monitoring" / "rules.yml").read_text())
    tested = re.findall(r"alertname: (\w+)\n +exp_alerts", "".join(file.read_text() for file in files))
    assert set(names) == set(tested)


def test_the_configuration_of_alertmanager_is_one() -> None:
    amtool = need("prometheus-alertmanager", "amtool")
    command = [amtool, "check-config", str(ROOT / "monitoring" / "alertmanager.yml")]
    subprocess.run(command, capture_output=True, timeout=900, check=True)


def test_the_service_is_one_that_systemd_takes(tmp_path: pathlib.Path) -> None:
    text = (ROOT / "monitoring" / "ansible-rulebook.service").read_text()
    unit = tmp_path / "ansible-rulebook.service"
    unit.write_text(re.sub(r"/opt/memops/bin/ansible-\w+", "/bin/true", text).replace("User=memops", "User=root"))
    command = [need("systemd", "systemd-analyze"), "--man=no", "verify", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
    assert done.stdout + done.stderr == ""
    names = set(re.findall(r"memops\.agent_memory\.\w+|--\w+", text))
    assert names == {"memops.agent_memory.alerts", "memops.agent_memory.info", "--rulebook", "--inventory", "--vars"}


def test_every_metric_that_rules_and_dashboard_ask_for_is_one_of_ours() -> None:
    text = (ROOT / "monitoring" / "rules.yml").read_text() + (ROOT / "monitoring" / "dashboard.json").read_text()
    assert set(re.findall(r"\bmemops_\w+", text)) - {"memops_action"} == set(HELP)


def test_what_a_store_tells(place: Place) -> None:
    place.fill(120)
    now = time.time()
    found = asked(place)
    assert found[("records", NS)] == 120
    assert found[("integrity_findings", NS)] == found[("fence_standing", NS)] == found[("standby", NS)] == 0
    assert found[("scrub_last_success_timestamp_seconds", "")] == pytest.approx(now, abs=900)
    assert 0 <= found[("key_age_seconds", "")] < 600
    assert ("hit_rate", NS) not in found  # nobody has read
    place.values([f"user/{n:05d}" for n in range(120)])
    place.values([f"nobody/{n}" for n in range(30)])
    assert asked(place)[("hit_rate", NS)] == pytest.approx(0.8)
    assert ("hit_rate", NS) not in asked(place, now=time.time() + 3600)  # all that was long ago


def test_every_engine_tells_the_same(bench: Bench, tmp_path: pathlib.Path) -> None:
    place = Place(tmp_path, bench)
    place.fill(120)
    place.values([f"user/{n:05d}" for n in range(120)])
    place.values([f"nobody/{n}" for n in range(30)])
    bench.raw("store").flip(NS, "user/00003")
    with place.memory() as memory, pytest.raises(RecordCorrupt):
        memory.read(NS, "user/00003")
    for scan in (True, False):
        found = asked(place, scan=scan, work_dir=str(tmp_path))
        assert found[("records", NS)] == 120 and found[("integrity_findings", NS)] == 1
        assert found[("hit_rate", NS)] == pytest.approx(120 / 151)
        assert found[("fence_standing", NS)] == found[("standby", NS)] == 0
        assert 0 <= found[("key_age_seconds", "")] < 600
        assert ("replication_lag_seconds", "") not in found  # nobody's replica
    store = open_store(place.store)
    claim = store.claim(NS, "host:1:1", "an operator", new_incident="inc-1")
    store.fence(claim)
    store.close()
    assert asked(place, work_dir=str(tmp_path))[("fence_standing", NS)] == 1


def test_damage_is_found_by_the_scan_and_what_applications_met_also_without_it(place: Place) -> None:
    place.fill(40)
    place.flip("user/00003")
    place.flip("user/00007")
    assert asked(place)[("integrity_findings", NS)] == 2
    assert asked(place, scan=False)[("integrity_findings", NS)] == 0
    with place.memory() as memory:
        memory.read(NS, "user/00004")
        with pytest.raises(RecordCorrupt):
            memory.read(NS, "user/00003")
    assert asked(place, scan=False)[("integrity_findings", NS)] == 1
    with place.memory() as memory:
        memory.write(NS, "user/00003", "new")
    found = asked(place, scan=False)
    assert found[("integrity_findings", NS)] == 0
    assert ("scrub_last_success_timestamp_seconds", "") not in found
    scrub(
        store=open_store(place.store), store_params=place.store, keyring=place.ring(), repository=None, name="c"
    )  # it closes the store
    scrubbed = asked(place, scan=False)[("scrub_last_success_timestamp_seconds", "")]
    assert scrubbed == pytest.approx(time.time(), abs=900)


def test_what_a_repository_tells(place: Place) -> None:
    place.fill(10)
    where = {"url": f"file://{place.folder}/repository"}

    def opened() -> t.Any:
        return Repository.open(where)

    missing = gather(store_params=place.store, cluster="c", host="h", open_keyring=place.ring, open_repository=opened)
    assert missing.warnings
    assert {s.value for s in missing.samples if s.name == "memops_repository_up"} == {0}
    made = Repository.open(where, create=True)
    found = asked(place, open_repository=opened)
    assert (found[("repository_up", "")], found[("backup_last_success_timestamp_seconds", "")]) == (1, 0)
    taken = create(store_params=place.store, repository=where, keyring=place.ring(), name="c", purpose="scheduled")
    found = asked(place, open_repository=opened)
    assert found[("backup_last_success_timestamp_seconds", "")] == pytest.approx(time.time(), abs=900)
    assert ("drill_last_success_timestamp_seconds", "") not in found
    keep(made, place.ring(), "c", {"verdict": "fail", "at": "2026-01-05T10:15:00Z"})
    assert ("drill_last_success_timestamp_seconds", "") not in asked(place, open_repository=opened)
    keep(made, place.ring(), "c", {"verdict": "pass", "at": "2026-01-05T10:15:00Z"})
    assert asked(place, open_repository=opened)[("drill_last_success_timestamp_seconds", "")] == 1767608100
    verify(repository=made, keyring=place.ring(), name="c", snapshot_id=taken["snapshot"], depth="restored")
    found = asked(place, open_repository=opened)
    assert found[("drill_last_success_timestamp_seconds", "")] == pytest.approx(time.time(), abs=900)


def test_what_keeps_snapshots(place: Place) -> None:
    place.fill(40)
    where = {"url": f"file://{place.folder}/repository"}

    def taken() -> str:
        given = {"store_params": place.store, "repository": where, "keyring": place.ring(), "name": "c"}
        return str(create(purpose="scheduled", **given)["snapshot"])

    def told() -> list[float]:
        found = asked(place, open_repository=lambda: Repository.open(where))
        names = ("snapshots", "snapshots_held", "backup_suspect", "backup_locked_until_timestamp_seconds")
        return [found[(name, "")] for name in names]

    first, second = taken(), taken()
    assert told() == [2, 0, 0, 0]
    made = {"repository": Repository.open(where), "keyring": place.ring(), "name": "c", "by": "ann", "reason": "why"}
    for label, snapshots in (("case-17", [first, second]), ("audit", [first])):
        hold(label=label, present=True, snapshots=snapshots, **made)
    assert told() == [2, 2, 0, 0]
    hold(label="case-17", present=False, snapshots=[first, second], **made)
    assert told() == [2, 1, 0, 0]
    place.sql("DELETE FROM memory_records WHERE key < 'user/00030'")
    doubted = taken()
    assert told() == [3, 1, 1, 0]
    Repository.open(where).accept("c", doubted, place.ring(), "ann", "it was meant")
    assert told() == [3, 1, 0, 0]


def test_the_place_in_the_log_is_the_first_entry_that_counts(place: Place) -> None:
    place.fill(7)
    store = open_store(place.store)
    with store.reader() as reader:
        entries = [entry for batch in reader.log() for entry in batch]
        for since in [0, *(entry.at + more for entry in entries for more in (0, 1)), 1 << 62]:
            after = log_position(reader, since)
            assert [e.id for e in entries if e.id > after and e.at >= since] == [e.id for e in entries if e.at >= since]
        assert log_position(reader, 1 << 62) == entries[-1].id
    store.close()


def test_the_file_is_what_prometheus_reads(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "memops.prom")
    labels = {"namespace": 'a"b\\c\nd', "cluster": "c"}
    samples = [Sample("memops_records", labels, 3), Sample("memops_hit_rate", {}, 1 / 3)]
    assert _metrics.write_textfile(path, samples)
    assert not _metrics.write_textfile(path, samples)
    text = pathlib.Path(path).read_text()
    assert 'memops_records{cluster="c",namespace="a\\"b\\\\c\\nd"} 3\n' in text
    assert "memops_hit_rate 0.333333\n" in text
    promtool("check", "metrics", text=text)
    assert os.listdir(tmp_path) == ["memops.prom"]
    assert os.stat(path).st_mode & 0o777 == 0o644
    with pytest.raises(InvalidInput, match=r"Next: let its name end in \.prom"):
        _metrics.write_textfile(str(tmp_path / "memops.txt"), samples)
    with pytest.raises(InvalidInput, match="There is no metric"):
        _metrics.write_textfile(path, [Sample("memops_strange", {}, 1)])


def test_an_otlp_receiver_gets_them_and_one_that_refuses_is_named() -> None:
    with OtlpMetrics() as receiver:
        _metrics.send(receiver.url, [Sample("memops_key_age_seconds", {"cluster": "c"}, 2.5)])
        receiver.refuse = True
        with pytest.raises(StoreUnavailable, match="took no metrics: HTTP 503"):
            _metrics.send(receiver.url + "/v1/metrics", [Sample("memops_records", {}, 1)])
    with pytest.raises(StoreUnavailable, match="Connection refused"):
        _metrics.send(receiver.url, [Sample("memops_records", {}, 1)])
    for wrong in ("http://user:secret@host:4318", "http://host:no", "http://host:70000", "host:4318", "http://"):
        with pytest.raises(InvalidInput, match="memory_otlp_endpoint"):
            _metrics.send(wrong, [])
    path, body = receiver.told[0]
    assert path == receiver.told[1][0] == "/v1/metrics"
    (metric,) = body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    (point,) = metric["gauge"]["dataPoints"]
    assert (metric["name"], metric["unit"], point["asDouble"]) == ("memops_key_age_seconds", "s", 2.5)
    assert point["attributes"] == [{"key": "cluster", "value": {"stringValue": "c"}}]
    assert abs(int(point["timeUnixNano"]) / 1e9 - time.time()) < 600
