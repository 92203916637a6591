# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A record in Route 53, on moto's server: it imitates AWS, since the service itself runs nowhere else."""
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    InvalidInput,
    RouteShared,
    RouteUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._routes import move, open_route
from ansible_collections.memops.agent_memory.plugins.module_utils._routes import route53 as module
from tests.support.aws_server import AwsServer

VALUES = {"memory-1": "memory-1.example.com", "memory-2": "Memory-2.example.com."}


@pytest.fixture(scope="module")
def server():
    with AwsServer() as running:
        yield running


@pytest.fixture
def zone(server, monkeypatch):
    """A hosted zone whose record leads to the first host."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    monkeypatch.setattr(module, "PAUSE", 0.01)
    client = server.client("route53")
    made = client.create_hosted_zone(Name="example.com", CallerReference=server.unique())["HostedZone"]["Id"]
    zone = made.rpartition("/")[2]
    write(client, zone, VALUES["memory-1"])
    return client, zone


def write(client, zone, *values, kind="CNAME", ttl=30, **more):
    record = {"Name": "memory.example.com", "Type": kind, **more}
    if values:
        record.update(TTL=ttl, ResourceRecords=[{"Value": value} for value in values])
    changes = [{"Action": "UPSERT", "ResourceRecordSet": record}]
    client.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": changes})


def records(client, zone):
    found = client.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    return {one["Name"]: one for one in found if one["Type"] not in ("NS", "SOA")}


def params(server, zone, **more):
    return {
        "kind": "route53", "zone_id": zone, "record": "memory.example.com", "values": VALUES, "ttl": 30,
        "endpoint_url": server.endpoint, "retries": 2, **more,
    }  # fmt: skip


def led(given, to, **options):
    return move(open_route(given, "agent-7", to=to), **options)


def test_there_and_back(server, zone):
    client, number = zone
    given = params(server, number)
    checked = led(given, "memory-2", check=True)
    assert (checked.changed, checked.elsewhere) == (True, True)
    assert records(client, number)["memory.example.com."]["ResourceRecords"][0]["Value"] == VALUES["memory-1"]
    there = led(given, "memory-2")
    assert (there.changed, there.before) == (True, checked.before)
    assert there.after == {"host": "memory-2", "value": "memory-2.example.com", "ttl": 30}
    assert records(client, number)["memory.example.com."]["ResourceRecords"][0]["Value"] == VALUES["memory-2"]
    assert not led(given, "memory-2").changed
    assert led(given, "memory-1").changed
    assert led(given, "memory-1", check=True) == (there.before, there.before, False, False)


def test_another_ttl_is_written_and_is_no_move(server, zone):
    client, number = zone
    moved = led(params(server, number, ttl=5), "memory-1")
    assert (moved.changed, moved.elsewhere) == (True, False)
    assert records(client, number)["memory.example.com."]["TTL"] == 5


def test_a_missing_record_is_made(server, zone):
    client, number = zone
    values = {"memory-1": "192.0.2.1", "memory-2": "192.0.2.2"}
    given = params(server, number, record="new.example.com.", type="A", values=values)
    made = led(given, "memory-2")
    assert (made.before, made.changed, made.elsewhere) == (None, True, False)
    assert records(client, number)["new.example.com."]["ResourceRecords"] == [{"Value": "192.0.2.2"}]
    assert records(client, number)["memory.example.com."]["ResourceRecords"][0]["Value"] == VALUES["memory-1"]


def test_the_change_is_waited_for(server, zone, monkeypatch):
    _client, number = zone
    route = open_route(params(server, number, timeout=5.0), "agent-7", to="memory-2")
    genuine, asked = route._call, []

    def call(operation, **arguments):
        answer = genuine(operation, **arguments)
        if operation in ("change_resource_record_sets", "get_change"):
            asked.append(operation)
            answer["ChangeInfo"]["Status"] = "INSYNC" if len(asked) == 3 else "PENDING"
        return answer

    monkeypatch.setattr(route, "_call", call)
    assert move(route).changed
    assert asked == ["change_resource_record_sets", "get_change", "get_change"]


def test_a_change_that_does_not_arrive_is_said(server, zone, monkeypatch):
    _client, number = zone
    route = open_route(params(server, number, timeout=0.05), "agent-7", to="memory-2")
    genuine = route._call

    def call(operation, **arguments):
        answer = genuine(operation, **arguments)
        if "ChangeInfo" in answer:
            answer["ChangeInfo"]["Status"] = "PENDING"
        return answer

    monkeypatch.setattr(route, "_call", call)
    with pytest.raises(RouteUnavailable, match=r"was changed, but not all servers of Route 53") as late:
        move(route)
    assert "INSYNC" in late.value.next_step


def test_it_serves_the_whole_store(server, zone):
    _client, number = zone
    with pytest.raises(RouteShared, match=r"Record memory\.example\.com in Route 53 leads to the whole store"):
        led(params(server, number), "memory-2", along=["agent-8"])


def test_a_long_ttl_is_warned_of(server):
    assert open_route(params(server, "Z1", ttl=60), "agent-7", to="memory-1").warnings() == []
    (warning,) = open_route(params(server, "Z1", ttl=300), "agent-7", to="memory-1").warnings()
    assert "300 s" in warning


def test_a_record_that_leads_to_no_one_host(server, zone):
    client, number = zone
    write(client, number, "elsewhere.example.com")
    with pytest.raises(InvalidInput, match=r"leads to elsewhere\.example\.com, which is no value"):
        led(params(server, number), "memory-2")
    for name, values, more in (
        ("weighted.example.com", [VALUES["memory-1"]], {"SetIdentifier": "one", "Weight": 1}),
        ("several.example.com", ["192.0.2.1", "192.0.2.2"], {"kind": "A"}),
    ):
        write(client, number, *values, Name=name, **more)
        with pytest.raises(InvalidInput, match="an alias, has several values or a routing policy"):
            led(params(server, number, record=name, type=more.get("kind", "CNAME")), "memory-2")


def test_bad_variables(server):
    for given, why in (
        (params(server, ""), "lacks zone_id"),
        (params(server, "Z1", record=None, values=None), "lacks record and values"),
        (params(server, "Z1", values={"memory-1": "a"}), "does not say what stands for memory-2"),
        (params(server, "Z1", values={"memory-1": "a", "memory-2": "a"}), "the same name for two"),
    ):
        with pytest.raises(InvalidInput, match=why):
            led(given, "memory-2")


def test_an_endpoint_that_refuses_or_is_away(server, zone, monkeypatch):
    with pytest.raises(RouteUnavailable, match=r"cannot be asked or changed: NoSuchHostedZone \(.*\)") as refused:
        led(params(server, "ZNONE"), "memory-2")
    assert "zone_id" in refused.value.next_step
    with pytest.raises(RouteUnavailable, match="cannot be asked or changed: Could not connect"):
        led({**params(server, zone[1]), "endpoint_url": "http://127.0.0.1:1", "retries": 1}, "memory-2")
    with pytest.raises(RouteUnavailable, match=r"There is no client for Route 53: .*profile"):
        led({**params(server, zone[1]), "profile": "no-such"}, "memory-2")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(RouteUnavailable, match="Unable to locate credentials"):
        led(params(server, zone[1]), "memory-2")
