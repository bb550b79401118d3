"""A browser of this machine's own; `make test` installs Debian's where it may."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def chromium_browser(options: Sequence[str] = ()) -> Iterator[Any]:
    """Start Chromium, or skip the test without it.

    Args:
        options: of its command line.

    Yields:
        Playwright's browser.
    """
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    root = getattr(os, "geteuid", lambda: 1)() == 0  # its sandbox does not work for root
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=[*options, *(["--no-sandbox"] if root else [])]
        )
        yield browser
        browser.close()
