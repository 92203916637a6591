# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Processes of their own that start with nothing of the test's: no connection, no thread, no open file.

Each is forked from one that has imported what they need and nothing else. A new interpreter for each would take half a
second of processor time to import it.
"""
from __future__ import annotations

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pytest", "tests.support.preloaded"])
