# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Values that a framework encrypted itself: which of them open, and which lie in plain, with the framework beside."""
from __future__ import annotations

import contextlib
import os
import sqlite3

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._application_ciphers import (
    AES,
    ApplicationKey,
    Eax,
    Shut,
    read_keys,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._application_seals import Tried, seals_of
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import InvalidInput, KeyUnavailable
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import integrity, scrub, verify
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.unit.operations.runbook import NAME, attempt
from tests.unit.operations.test_doctor import examined, of
from tests.unit.tables.keys_help import NEW, OLD, TABLES, WRONG, keyed


@pytest.fixture(params=sorted(TABLES), ids="-".join)
def site(request, tmp_path, processes, postgresql_server):
    layout, engine = request.param
    one = keyed(tmp_path, processes[layout], layout, engine, postgresql_server)
    yield one
    one.end()


def scan(site, namespace):
    return integrity.scan(store_params=site.store, keyring=None, namespace=namespace, application=True)


def warned(site):
    with site.open() as store:
        return [line for line in store.warnings() if "fsync" not in line]


@pytest.mark.parametrize("key", ["k" * 16, "k" * 24, "k" * 32])
def test_aes_eax_is_that_of_the_framework(processes, key):
    app, own = processes["langgraph_checkpoint"], Eax(key.encode())
    for size in (0, 1, 15, 16, 17, 32, 1000):
        plain = os.urandom(size)
        assert own.open(bytes.fromhex(app.seal(key, plain.hex()))) == plain
        assert app.unseal(key, own.seal(plain).hex()) == plain.hex()
        value = bytearray(own.seal(plain))
        value[size // 2] ^= 1
        for damaged in (bytes(value), b"", b"x" * 31, own.seal(plain)[:-1]):
            with pytest.raises(Shut):
                own.open(damaged)


def test_one_value_that_no_key_opens_is_found_and_named(site):
    site.say("ann")
    site.use(OLD)
    assert scan(site, "ann")["verdict"] == "pass"
    row, value = site.sealed("ann")[1]
    site.damage("ann", row, value)
    damage = os.path.join(site.folder, "damage.db")
    found = integrity.scan(
        store_params=site.store, keyring=None, namespace="ann", damage_file=damage, application=True
    )
    assert found["verdict"] == "fail" and found["findings"] == {"application-key": 1}, found
    assert "no key of the application" in found["examples"][0]["evidence"]
    assert any("1 of " in line and "none of its keys" in line for line in warned(site))
    # what is told decides nothing: no plan repairs it unasked
    with contextlib.closing(sqlite3.connect(damage)) as con:
        assert con.execute("SELECT count(*) FROM damage").fetchone() == (0,)


def test_a_wrong_key_is_no_empty_memory(site):
    site.say("ann")
    if site.messages:
        assert site.told("ann", WRONG) == []  # what the framework makes of it
    else:
        with pytest.raises(RuntimeError, match="MAC"):
            site.told("ann", WRONG)
    site.use(WRONG)
    found = scan(site, "ann")
    assert found["verdict"] == "fail" and found["rows"] > 0
    assert found["findings"]["application-key"] == found["damaged"] >= 3
    assert any("that were tried opens" in line for line in warned(site))
    with site.open() as store:
        scrub.scrub(store=store, store_params=site.store, keyring=site.ring(), repository=None, name=NAME)
    told = of(examined(site), "integrity")
    assert told["verdict"] == "fail" and "application_key_file" in told["next"], told
    assert "rebuild" not in told["next"]
    site.use(WRONG, OLD)  # a former key opens what it once encrypted
    assert scan(site, "ann")["verdict"] == "pass"
    assert not any("encrypted by the application" in line for line in warned(site))
    site.use()
    assert any("could not be verified" in line for line in warned(site))


@pytest.mark.parametrize("keys", [(WRONG,), (OLD,)], ids=["wrong", "right"])
def test_a_rebuild_goes_on_whatever_the_key(site, keys):
    site.say("ann", 4)
    before = site.told("ann")
    site.use(*keys)
    site.backup()
    started = now_us()
    for row, value in site.sealed("ann")[:1]:
        site.damage("ann", row, value)
    run, done = attempt(), {}
    options = {"diagnose": {"window": Window(onset=started)}, "plan": {"strategy": "hard"}}
    for step in ("isolate", "forensic", "diagnose", "plan", "apply", "validate", "release"):
        done[step] = site.step(step, run, namespace="ann", **options.get(step, {}))
    count = done["diagnose"]["findings"]["application-key"]
    assert count == 1 if keys == (OLD,) else count > 1
    causes = {one["cause"]: one["evidence"] for one in done["diagnose"]["causes"]}
    assert "no key of the application" in causes["application-key"][0]
    assert done["plan"]["records"]["repair"] == 1 and done["validate"]["verdict"] == "pass"
    assert site.told("ann") == before


def test_a_snapshot_is_tried_too(site):
    site.say("ann")
    site.backup()
    row, value = site.sealed("ann")[1]
    site.damage("ann", row, value)
    site.backup()
    repository = Repository.open(site.repository)
    newest, former = [one.id for one in repository.snapshots(NAME)]

    def verified(snapshot, *keys):
        site.use(*keys)
        seals = seals_of(site.store)
        return verify.verify(
            repository=repository, keyring=site.ring(), name=NAME, snapshot_id=snapshot, depth="opened",
            application=Tried(seals) if seals.keys else None,
        )  # fmt: skip

    assert verified(former, OLD)["verdict"] == verified(former, WRONG, OLD)["verdict"] == "pass"
    found = verified(newest, OLD)
    assert found["verdict"] == "could-not-verify" and len(found["problems"][0]["records"]) == 1
    assert "opens with no key of the application" in found["problems"][0]["reason"]
    assert verified(newest)["verdict"] == "pass"  # nobody asked
    assert verified(former, WRONG)["verdict"] == "could-not-verify"


def test_plain_text_beside_encrypted_is_told(site):
    site.use(OLD)
    site.say("plain", key=None)
    assert not any("plain" in line for line in warned(site))  # an application that encrypts nothing
    site.say("ann")
    clean = [line for line in warned(site) if "beside encrypted" in line]
    assert clean == []
    site.leak("ann")
    told = [line for line in warned(site) if "beside encrypted" in line]
    assert told and ("does not show them" in told[0] if site.messages else "reads them all the same" in told[0])


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_what_langgraph_keeps_in_plain_is_told(tmp_path, processes, postgresql_server, engine):
    app = processes["langgraph_checkpoint"]
    site = keyed(tmp_path, app, "langgraph_checkpoint", engine, postgresql_server)
    site.use(OLD)
    app.say("plain", ["one"], None, {"user_name": "ann"})
    assert warned(site) == []
    app.say("secret", ["one"], OLD)
    inline = [line for line in warned(site) if "texts and numbers in plain" in line]
    assert len(inline) == (engine == "postgresql")  # in a file the whole checkpoint is one encrypted value
    assert not any("metadata" in line for line in warned(site))
    app.say("secret", ["two"], OLD, {"user_name": "ann"})
    assert any("metadata" in line and "user_name" in line for line in warned(site))
    site.end()


# --- the keys themselves --------------------------------------------------------------------------------------------
def test_keys_come_from_a_file_of_lines_or_a_value(tmp_path):
    path = tmp_path / "key"
    path.write_text(f"{NEW}\n\n {OLD} \n", encoding="utf-8")
    found = read_keys(None, str(path), "memory_store.application_key_file")
    assert [one.fingerprint for one in found] == [ApplicationKey(text, "").fingerprint for text in (NEW, OLD)]
    assert NEW not in repr(found) and read_keys(None, None, "") == []
    raw = ApplicationKey("base64:" + "AAECAwQFBgcICQoLDA0ODw==", "")
    assert raw.cipher(AES).open(Eax(bytes(range(16))).seal(b"said")) == b"said"
    path.write_text("\n", encoding="utf-8")
    for value, file, kind, said in (
        (None, str(path), InvalidInput, "is empty"),
        (None, str(tmp_path / "none"), KeyUnavailable, "cannot be read"),
        (NEW, str(path), InvalidInput, "two keys"),
    ):
        with pytest.raises(kind, match=said):
            read_keys(value, file, "memory_store.application_key_file")
    for text, said in (("short", "has 5 bytes"), ("base64:%", "no base64")):
        with pytest.raises(InvalidInput, match=said):
            ApplicationKey(text, "memory_store.application_key").cipher(AES)
