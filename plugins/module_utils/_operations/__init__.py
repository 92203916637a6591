# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Operations: the steps of the runbook as plain functions over a store, a repository and a keyring.

PRIVATE to the collection. No operation knows its engine, and none knows Ansible.
"""
from __future__ import annotations
