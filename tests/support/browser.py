"""Debian's Chromium for tests of pages, driven by Playwright without a network.

`python tests/support/browser.py` installs what is missing; `make test` does so first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGE = "chromium"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def missing() -> str | None:
    """What a browser lacks, in a sentence; None where it is there."""
    return (
        None
        if shutil.which("chromium")
        else f"tests of pages need Debian's {PACKAGE}: apt-get install {PACKAGE}"
    )


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium with an empty profile, as Playwright's Browser.

    Raises:
        RuntimeError: there is none; says what to install.
    """
    from playwright.sync_api import sync_playwright

    if lacking := missing():
        raise RuntimeError(lacking)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=[*FLAGS])
        try:
            yield found
        finally:
            found.close()


@contextmanager
def opened(chromium: Any, path: Path, width: int = 1600, scheme: str = "light") -> Iterator[Any]:
    """(page, what went wrong in it) once all is drawn: script errors, and what it tried to fetch."""
    page, wrong = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: None if asked.url.startswith("file:") else wrong.append(asked.url))
    try:
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=yes]", state="attached")
        yield page, wrong
    finally:
        page.close()


def install() -> None:
    """Debian's package, where this user may install it."""
    if missing() and shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
        subprocess.run(["apt-get", "update", "-qq"], check=False, **quiet)
        words = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", PACKAGE]
        subprocess.run(words, check=False, **quiet)


if __name__ == "__main__":
    install()
    if lacking := missing():
        sys.exit(f"{lacking} (it could not be installed here)")
