# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the tables of LangGraph's store in PostgreSQL that neither the server nor the framework says."""

from __future__ import annotations

from tests.unit.operations.runbook import NS, attempt


def test_what_the_server_and_the_framework_do_not_say_is_found_and_mended(site):
    site.fill(count=3)
    site.put(NS, {"gone": {"text": "ended"}}, ttl=1)
    site.sql("UPDATE store SET expires_at = now() - interval '1 h' WHERE key = 'gone'")
    with site.open() as store:
        with store.reader() as reader:
            assert reader.structure() == []
        assert any("1 row of store has expired" in line for line in store.warnings())
        assert not any("no vector for" in line for line in store.warnings())
        site.sql("DELETE FROM store_vectors WHERE key = 'fact 00001'")
        (line,) = [line for line in store.warnings() if "no vector for" in line]
        assert line.startswith(f"1 item of '{NS}' has no vector for ") and "such as 'fact 00001'" in line
    site.sql("ALTER TABLE store_vectors DROP CONSTRAINT store_vectors_prefix_key_fkey")
    site.sql("INSERT INTO store_vectors SELECT prefix, 'nobody', field_name, embedding FROM store_vectors LIMIT 1")
    site.step("isolate", attempt(), NS)
    site.sql("DROP POLICY memops_read ON store; ALTER TABLE store_vectors DISABLE TRIGGER memops_fence_insert")
    site.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'store_prefix_idx'::regclass")
    with site.open() as store:
        with store.reader() as reader:
            said = "; ".join(reader.structure())
        for what in ("rules on store are", "triggers on store_vectors", "belongs to no row of store", "idx is invalid"):
            assert what in said
        assert not store.prove(NS)["reads_refused"]
        done = "; ".join(store.repair_structure())
        assert "raised the fence again" in done and "rebuilt the index" in done and "set 1 row of" in done
        with store.reader() as reader:
            assert reader.structure() == []
        assert store.prove(NS)["reads_refused"] and store.prove(NS)["writes_refused"]
    site.sql("ALTER TABLE store_vectors ADD CONSTRAINT store_vectors_prefix_key_fkey FOREIGN KEY (prefix, key) "
             "REFERENCES store(prefix, key) ON DELETE CASCADE")  # fmt: skip
    site.close_by_release(NS)


def test_a_value_that_is_not_the_frameworks_is_damage(site):
    site.fill(count=3)
    before = site.dump_of()
    site.backup()
    site.sql("UPDATE store SET value = '[1]' WHERE prefix = %s AND key = 'fact 00001'", NS)
    done = site.rebuild(NS)  # without any window
    assert done["plan"]["records"]["damaged"] == 1 and site.dump_of() == before
