# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Key rotation by several processes on every engine, killed at random instants beside a live writer."""

from __future__ import annotations

import os
import random
import signal
import time

from ansible_collections.memops.agent_memory.plugins.module_utils._operations import rotate
from tests.unit.operations.operations_help import NS, Place
from tests.unit.operations.rotate_help import assert_all_open, holder, live_writer, run


def test_killed_beside_a_live_writer_it_goes_on(bench, tmp_path):
    place = Place(tmp_path, bench)
    values = place.fill(3000)
    children = []
    for number, delay in enumerate((0.05, 0.15, 0.3)):  # forked before there is a thread
        child = os.fork()
        if not child:
            time.sleep(number * 0.8)
            try:
                rotate.rotate(
                    store_params=place.store, keyring=place.keyring, owner="o", namespace=NS, attempt=f"a:{number}:1",
                    takeover=holder(place), force=number == 0, batch=200, workers=2,
                )  # fmt: skip
            finally:
                os._exit(0)
        children.append((child, number * 0.8 + delay))
    began = time.monotonic()
    with live_writer(place, random.Random(5), 3000) as written:
        for child, instant in children:
            time.sleep(max(0.0, began + instant - time.monotonic()))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    last = run(place, attempt="last:1:1", takeover=holder(place))
    assert last["complete"] is True
    assert {row[7] for row in place.rows()} == {place.ring().active_id}
    assert len(place.ring().ids()) <= 2
    assert_all_open(place, {**values, **written})
