# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  keys:
    description:
      - Only these records. A key that does not exist is an error and nothing is changed, unless O(pattern) or O(since)
        choose others.
      - With O(keys), O(pattern) or O(since) the namespace itself keeps its state. O(pattern) and O(since) together
        choose what both match; O(keys) are chosen beside that.
    type: list
    elements: str
  pattern:
    description: Only the records whose key matches this shell pattern, such as V(user-*); V(*) matches slashes too.
    type: str
  since:
    description: Only the records that were last written at this time or later, RFC 3339 with a time zone.
    type: str
  until:
    description: The end of the time range that begins with O(since), itself included.
    type: str
"""
