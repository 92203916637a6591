# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Engines: how a store connects, reads and writes in bulk, and fences. Nothing here knows an operation.

PRIVATE to the collection.
"""
