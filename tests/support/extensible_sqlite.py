# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A sqlite3 that loads extensions in place of Python's, which in many interpreters does not. To be imported before a
framework that needs sqlite-vec, as its applications do it. In the environment of tests/support/frameworks.py."""
from __future__ import annotations

import sys

from sqlean import dbapi2 as sqlite3

sys.modules["sqlite3"] = sys.modules["sqlite3.dbapi2"] = sqlite3
