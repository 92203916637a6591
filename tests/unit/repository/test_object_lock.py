# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Snapshots in a bucket with object lock, on a server that enforces it, against who has every right of ours."""
from __future__ import annotations

import time
import typing as t
from types import SimpleNamespace

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    holds,
    retention,
    retention_lock,
    snapshot_step,
    tombstone_retention,
    verify,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.doctor import doctor
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.doctor_base import Limits
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import Run
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import IDENTITY, Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.s3 import S3Objects
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.s3_server import S3Server

from .conftest import NAME, Place, many

DAY = 86400.0
SOON = 4 / DAY  # days


@pytest.fixture(scope="session")
def bucket(s3: S3Server) -> str:
    client = raw(s3)
    client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    return "locked"


def raw(s3: S3Server) -> t.Any:
    """A client with every right, as somebody has who stole the credentials."""
    return S3Objects(s3.bucket, "", s3.repository())._connect()


@pytest.fixture
def locked(place: Place, s3: S3Server, bucket: str, request: pytest.FixtureRequest) -> Place:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    place.repository = {**s3.repository(), "url": f"s3://{bucket}/{name}", "object_lock": "compliance",
                        "object_lock_days": 1.0}  # fmt: skip
    return place


def sweep(place: Place, days: float = 0, **more: t.Any) -> dict[str, t.Any]:
    arguments = {"keep_last": 1, "keep_within": 0, "repository": place.repository, **more}
    return retention.apply(keyring=place.keyring, name=NAME, now=time.time() + days * DAY, **arguments)


def keys(place: Place, snapshot: str) -> list[str]:
    return [info.key for info in place.open().objects.list(f"snapshots/{NAME}/{snapshot}/")]


def ends(place: Place, snapshot: str) -> list[float]:
    locks = place.open().objects.locks
    assert locks is not None
    return locks.until([key for key in keys(place, snapshot) if "/checks/" not in key])


def opens(place: Place, snapshot: str) -> str:
    return str(
        verify.verify(
            repository=place.repository, keyring=place.keyring, name=NAME, snapshot_id=snapshot, depth="opened"
        )["verdict"]
    )


def alive(place: Place) -> set[str]:
    return {info.id for info in place.open().snapshots(NAME, place.keyring) if not info.problem}


def test_a_bucket_without_object_lock_is_refused(place: Place, s3: S3Server) -> None:
    place.fill("n", many(10))
    place.repository = s3.repository("no-lock", object_lock="governance")
    run = Run(attempt="a", owner="o")
    store = open_store(place.store)
    works: list[t.Callable[[], t.Any]] = [
        place.snapshot,
        lambda: snapshot_step.publish(
            store=store, store_params=place.store, keyring=place.keyring, repository=place.repository, name=NAME,
            purpose="scheduled", namespaces=None, run=run,
        ),
    ]  # fmt: skip
    for work in works:
        with pytest.raises(errors.RepositoryRefused, match="has no object lock") as caught:
            work()
        assert "make a bucket with object lock" in caught.value.next_step
    store.close()
    Repository.open(s3.repository("no-lock"), create=True)
    with pytest.raises(errors.RepositoryRefused, match="has no object lock"):
        sweep(place)
    for wrong in ({"object_lock": "soon"}, {"object_lock_days": 0}, {"object_lock_days": "x"}):
        with pytest.raises(errors.InvalidInput, match="object_lock"):
            Repository.open({**place.repository, **wrong})


def test_who_has_every_right_removes_nothing(locked: Place, s3: S3Server, bucket: str) -> None:
    place = locked
    place.repository["object_lock"] = "governance"
    place.fill("n", many(10))
    one = place.snapshot()["snapshot"]
    assert place.open().seen["object_lock"] is True and not place.open().warnings
    place.repository["object_lock"] = "compliance"
    two = place.snapshot(base=None)["snapshot"]
    assert min(ends(place, one)) > time.time() + DAY - 900
    prefix, thief = place.repository["url"].split("/", 3)[3], raw(s3)
    for snapshot, mode in ((one, "GOVERNANCE"), (two, "COMPLIANCE")):
        for key in keys(place, snapshot):
            full = f"{prefix}/{key}"
            version = thief.head_object(Bucket=bucket, Key=full)["VersionId"]
            for shorter in (
                lambda k=full, v=version: thief.delete_object(Bucket=bucket, Key=k, VersionId=v),
                lambda k=full, m=mode: thief.put_object_retention(
                    Bucket=bucket, Key=k, Retention={"Mode": m, "RetainUntilDate": time.time() + 60}
                ),
            ):
                with pytest.raises(Exception, match="AccessDenied"):
                    shorter()
            if snapshot == one:
                thief.delete_object(Bucket=bucket, Key=full)
            elif not key.endswith("keys/" + key.rpartition("/")[2]):
                thief.put_object(Bucket=bucket, Key=full, Body=b"rubbish")
    assert not alive(place)
    given = {"repository": place.open(), "keyring": place.keyring, "name": NAME, "by": "ann", "reason": "theft"}
    told = holds.undelete(check=True, **given)
    assert told["changed"] and not alive(place)
    assert holds.undelete(**given)["uncovered"] == told["uncovered"] and len(told["uncovered"]) == 7
    assert alive(place) == {one, two} and opens(place, one) == opens(place, two) == "pass"
    assert not holds.undelete(**given)["changed"]


def test_a_base_is_locked_as_long_as_what_refers_to_it(locked: Place) -> None:
    place = locked
    place.fill("n", many(10))
    place.repository["object_lock"] = "governance"
    base = place.snapshot()["snapshot"]
    place.repository.update(object_lock="compliance", object_lock_days=3.0)
    user = place.snapshot()
    assert user["base"] == base
    assert min(ends(place, base)) >= max(ends(place, user["snapshot"])) > time.time() + 3 * DAY - 900


class Cut(BaseException):
    """The process is killed: nobody handles it."""


def cut_off(place: Place, monkeypatch: pytest.MonkeyPatch, days: float, stay: set[str]) -> dict[str, t.Any]:
    """Retention, killed before its first change, then before its second …, until one comes to its end; its result."""
    opened, request, left, number = place.open(), S3Objects.call, 0, 0

    def cut(self: S3Objects, action: str, key: str, operation: str, **arguments: t.Any) -> t.Any:
        nonlocal left
        left -= operation.startswith(("put", "delete"))
        if left == 0:
            raise Cut
        return request(self, action, key, operation, **arguments)

    while True:
        number += 1
        left = number
        try:
            with monkeypatch.context() as patch:
                patch.setattr(S3Objects, "call", cut)
                return sweep(place, days, repository=opened)
        except Cut:
            assert {info.id for info in opened.snapshots(NAME, place.keyring) if not info.problem} >= stay


def test_what_stays_is_locked_again_and_what_goes_waits_for_its_lock(
    locked: Place, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = locked
    place.fill("n", many(10))
    began = time.time()
    place.repository["object_lock_days"] = SOON
    gone = place.snapshot(base=None)["snapshot"]
    base = place.snapshot(base=None)["snapshot"]
    user = place.snapshot(base=base)["snapshot"]
    verified = opens(place, gone)  # its result is not locked
    place.repository["object_lock_days"] = 10.0
    with monkeypatch.context() as patch:
        patch.setattr(retention_lock, "time", SimpleNamespace(time=lambda: began))  # however long this takes
        told = sweep(place, check=True)
        first = cut_off(place, monkeypatch, 0, {base, user})
        again = sweep(place)
    assert verified == "pass" and told["removed"] == [] and set(told["locked"]) == {base, user}
    reasons = {one["snapshot"]: one["reason"] for one in first["kept"]}
    assert reasons[gone].startswith("locked until 20") and reasons[base] == "others refer to it"
    assert min(*ends(place, base), *ends(place, user)) > time.time() + 9 * DAY
    locks = place.open().objects.locks
    assert locks is not None and locks.until([IDENTITY])[0] > time.time() + 9 * DAY
    assert not again["changed"]
    time.sleep(max(0.0, max(ends(place, gone)) - time.time()) + 1.0)
    cut_off(place, monkeypatch, 0, {base, user})
    cut_off(place, monkeypatch, 2, {base, user})
    prefix = f"{place.repository['url'].split('/', 3)[3]}/snapshots/{NAME}/{gone}/"
    left = raw(s3).list_object_versions(Bucket=bucket, Prefix=prefix)
    assert not left.get("Versions") and not left.get("DeleteMarkers")
    assert alive(place) == {base, user} and opens(place, user) == "pass"


def test_deleting_what_is_locked_hides_it(locked: Place) -> None:
    place = locked
    place.fill("n", many(10))
    one = place.snapshot()["snapshot"]
    objects = place.open().objects
    (sealed,) = [key for key in keys(place, one) if "/keys/" in key]
    objects.delete([sealed])  # as who gives up a master key
    assert objects.children(f"snapshots/{NAME}/{one}/keys/") == []
    assert objects.purge(f"snapshots/{NAME}/{one}/", f"snapshots/{NAME}/{one}/manifest.json") > 0
    assert f"snapshots/{NAME}/{one}/manifest.json" in keys(place, one)


def test_the_doctor_looks_at_lock_endpoint_and_clock(locked: Place, s3: S3Server) -> None:
    place = locked
    place.fill("n", many(10))
    place.snapshot()

    def examined(**more: t.Any) -> dict[str, tuple[str, str]]:
        given = {"limits": Limits(), "only": ("object_lock", "conditional_put", "clock"), "name": NAME, **more}
        found = doctor(
            open_store=lambda: open_store(place.store), store_params=place.store, keyring_params={},
            repository_params=place.repository, open_keyring=lambda: place.keyring, open_repository=place.open, **given,
        )  # fmt: skip
        return {one["check"]: (one["verdict"], one["says"]) for one in found["checks"]}

    assert {verdict for verdict, _says in examined().values()} == {"pass"}
    assert "just now" in examined(probe=True)["conditional_put"][1]
    off = examined(now=time.time() + 120)["clock"]  # no other clock is asked than that of the endpoint
    assert off[0] == "fail" and "the repository's" in off[1]
    assert examined(now=time.time() + 2 * DAY)["object_lock"][0] == "fail"  # its lock would be over
    place.repository = s3.repository("doctor", object_lock="none")
    place.snapshot()
    assert examined()["object_lock"][0] == "not-applicable"
    place.repository["object_lock"] = "governance"
    assert examined()["object_lock"][0] == "fail"


def test_what_was_hidden_beside_us_may_bring_records_back(locked: Place, s3: S3Server, bucket: str) -> None:
    place = locked

    def retained() -> dict[str, t.Any]:
        store = open_store(place.store)
        try:
            return tombstone_retention.apply(
                store=store, store_params=place.store, repository=place.open(), keyring=place.keyring, name=NAME,
                keep_tombstones=0.0,
            )  # fmt: skip
        finally:
            store.close()

    place.fill("n", {"kept": b"1", "gone": b"1"})
    old = place.snapshot()["snapshot"]
    place.fill("n", {"gone": None})
    place.snapshot(base=None)
    assert retained() == {"changed": False, "tombstones": 0, "reason": ""}
    prefix = place.repository["url"].split("/", 3)[3]
    thief = raw(s3)
    for key in keys(place, old):
        thief.delete_object(Bucket=bucket, Key=f"{prefix}/{key}")
    told = f"somebody deleted snapshot {old} in the bucket, and undelete brings it back"
    assert retained() == {"changed": False, "tombstones": 0, "reason": told}
    holds.undelete(repository=place.open(), keyring=place.keyring, name=NAME, by="me", reason="back")
    assert old in alive(place) and retained() == {"changed": False, "tombstones": 0, "reason": ""}
