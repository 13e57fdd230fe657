"""`blind-test serve` as a process, and a rater who speaks HTTP to it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import ClassVar

import httpx2

CLI = [sys.executable, "-c", "from trainer.cli import main; main()", "blind-test"]


class Served:
    """A running server; `links` by rater."""

    def __init__(self, folder: Path, *raters: str) -> None:
        invited = [part for name in raters for part in ("--rater", name)]
        self.process = subprocess.Popen(
            [*CLI, "serve", "--out", str(folder), "--port", "0", *invited],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.links = dict(self.process.stdout.readline().strip().split(": ", 1) for _ in raters or ("rater",))
        self.base = next(iter(self.links.values())).split("/r/")[0]

    def stop(self, how: signal.Signals = signal.SIGINT) -> str:
        """Ends the process; returns everything else that it printed."""
        self.process.send_signal(how)
        printed, complaints = self.process.communicate(timeout=60)
        return printed + complaints


class Rater:
    """A browser without scripts: one cookie jar."""

    opened: ClassVar[list[httpx2.Client]] = []
    """Closed by a fixture after each test."""

    def __init__(self, link: str) -> None:
        self.http = httpx2.Client(
            base_url=link.split("/r/")[0], trust_env=False, timeout=60, follow_redirects=True, headers={"Accept": "*/*"}
        )
        self.opened.append(self.http)
        self.page = self.http.get(link).text

    def field(self, name: str) -> str:
        """A hidden field of the shown form."""
        found = re.search(rf'name="{name}" value="([^"]*)"', self.page)
        assert found, self.page
        return unescape(found[1])

    @property
    def number(self) -> int:
        """The shown item's place."""
        found = re.search(r'action="/item/(\d+)"', self.page)
        assert found, self.page
        return int(found[1])

    @property
    def progress(self) -> str:
        """E.g. 1/8."""
        found = re.search(r"(\d+/\d+) answered", self.page)
        assert found, self.page
        return found[1]

    @property
    def checked(self) -> list[tuple[str, str]]:
        """The chosen radio buttons."""
        return re.findall(r'name="(choice|preference)" value="(\d)" required checked', self.page)

    def post(self, **fields: str) -> httpx2.Response:
        """Sends the shown form with these answers, and does not look at what comes back."""
        data = {"form": self.field("form"), "item": self.field("item"), **fields}
        return self.http.post(f"/item/{self.number}", data=data)

    def answer(self, choice: str, preference: str = "0", note: str = "") -> None:
        """Sends the shown form and goes on to the next page."""
        self.page = self.post(choice=choice, preference=preference, note=note).text

    def open(self, path: str) -> int:
        """Goes to a page; returns its status."""
        reply = self.http.get(path)
        self.page = reply.text
        return reply.status_code
