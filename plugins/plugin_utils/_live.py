# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last line of a terminal: it says what goes on at the moment and gives way to whatever is printed next.

PRIVATE to the collection. The stdout callback says, before Ansible forks its workers, whether there is such a line.
"""

from __future__ import annotations

import typing as t

from ansible.utils.display import Display

display = Display()
_CLEAR = "\r\033[K"
_width: t.Optional[int] = None
_columns = 0


def use_terminal(width: t.Optional[int]) -> None:
    """From now on, and in workers forked later, the terminal's last line may be rewritten; with None it may not."""
    global _width
    _width = width


def show_steps(columns: int) -> None:
    """The stdout callback shows each step, wrapped at so many columns: the end of a run need not repeat them."""
    global _columns
    _columns = columns


def steps_shown() -> int:
    """The columns of what the callback shows; 0 when another one is in use."""
    return _columns


def on_terminal() -> bool:
    return _width is not None


def show(text: str) -> None:
    """Put ``text`` on the last line, shortened to its width. Without a terminal nothing is shown."""
    if _width is not None:
        line = text if len(text) < _width else text[: _width - 2] + "…"
        display.display(_CLEAR + line, newline=False, screen_only=True)


def clear() -> None:
    if _width is not None:
        display.display(_CLEAR, newline=False, screen_only=True)
