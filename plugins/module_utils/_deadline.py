# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A whole answer within a time: a socket's own timeout is for each part of it, so that a server which sends a byte now
and then would keep a step for ever.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import typing as t


@contextlib.contextmanager
def within(connection: http.client.HTTPConnection, seconds: float) -> t.Iterator[None]:
    """Connects; the block asks and reads, and is cut off when it lasts longer. Errors: OSError (TimeoutError)."""
    connection.connect()
    there = connection.sock
    over = threading.Event()

    def cut() -> None:
        over.set()
        with contextlib.suppress(OSError):
            there.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException):
        if not over.is_set():
            raise
    finally:
        timer.cancel()
    if over.is_set():
        raise TimeoutError(f"no whole answer within {seconds:g} s")
