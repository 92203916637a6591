# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Debian's Chromium without a window, driven by Playwright; what Playwright itself would download is not needed."""
from __future__ import annotations

import contextlib
import typing as t

from tests.support.debian import need

MILLISECONDS = 300_000  # for a page, an element or the browser itself; a slow machine takes its time


@contextlib.contextmanager
def chromium() -> t.Iterator[t.Any]:
    """A playwright.sync_api.Browser; every page that a test opens closes with it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=need("chromium", "chromium"), timeout=MILLISECONDS)
        try:
            yield browser
        finally:
            browser.close()
