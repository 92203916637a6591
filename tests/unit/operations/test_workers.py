# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What worker processes keep of the memory that a batch took."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._operations.workers import Parent, Worker

BATCHES, ROWS, ROW_BYTES = 5, 65_000, 600  # a row is more than Python takes from its own arenas


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc has other ways")
def test_a_batch_lies_where_the_one_before_it_lay() -> None:
    """In a process that never had a larger block, which this one had."""
    done = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import page_faults; print(page_faults())"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) < ROWS * ROW_BYTES // resource.getpagesize()  # those of one batch


def page_faults() -> int:
    worker = Worker(_work_in_batches)
    try:
        return int(worker.receive()[1])
    finally:
        worker.stop()


def _work_in_batches(parent: Parent) -> None:
    _batch()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _turn in range(BATCHES):
        _batch()
    parent.send("faults", resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


def _batch() -> list[bytes]:
    return [bytes(ROW_BYTES) for _row in range(ROWS)]
