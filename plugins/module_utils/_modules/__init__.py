# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the modules do: of each its arguments and its call of the operations.

PRIVATE to the collection. Their documentation is in plugins/modules. They lie here because AnsiballZ packs nothing that
lies there, and plugins/modules/dispatch.py carries all of them.
"""
