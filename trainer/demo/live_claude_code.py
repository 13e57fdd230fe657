"""The real Claude Code: found in the cache or installed from npm, and run in a home of its own on loopback.

The closed loop needs it, and so do the tests that drive it: one version, so that what is measured can be repeated.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError

VERSION = "2.1.330"
INSTALL_SECONDS = 900
RUN_SECONDS = 180


class Unavailable(TrainerError):
    """The CLI cannot be had here; the message says why."""


def _package() -> str:
    systems = {"linux": "linux", "darwin": "darwin"}
    machines = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
    system, machine = systems.get(sys.platform), machines.get(platform.machine().lower())
    if system is None or machine is None:
        raise Unavailable(f"Claude Code has no package for {sys.platform} {platform.machine()} that is known here")
    return f"@anthropic-ai/claude-code-{system}-{machine}"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "claude-capture" / "claude-code"


def _binary() -> Path:
    return _cache() / VERSION / "node_modules" / _package() / "claude"


def is_installed() -> bool:
    """Whether `find_or_install` needs no network."""
    return _binary().exists()


def find_or_install() -> Path:
    """The `claude` binary of VERSION, from the cache or installed into it (about 380 MB).

    Raises:
        Unavailable: npm is missing, or the package cannot be had or does not run.
    """
    binary = _binary()
    if not binary.exists():
        _install(_cache(), binary)
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{binary} does not run: {error}") from error
    if VERSION not in said.stdout:
        raise Unavailable(f"{binary} --version says {(said.stdout or said.stderr).strip()!r}, not {VERSION}")
    return binary


def _install(cache: Path, binary: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("npm is not installed, so Claude Code cannot be; install Node.js with npm and try again")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        options = ["--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder]
        try:
            ended = subprocess.run(
                [npm, "install", *options, f"{_package()}@{VERSION}"],
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"npm install failed: {error}") from error
        if ended.returncode != 0:
            raise Unavailable(f"npm install failed: {ended.stderr.strip()[-300:]}")
        try:
            Path(folder, "node_modules").rename(_made(cache / VERSION) / "node_modules")
        except OSError as error:  # another test process was faster
            if not binary.exists():
                raise Unavailable(f"cannot keep Claude Code in {cache}: {error}") from error


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


@dataclass
class ClaudeCode:
    """Claude Code with a home, a config and a project below `folder`."""

    binary: Path
    folder: Path
    base_url: str = "http://127.0.0.1:9"
    more: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in (self.home, self.config, self.project):
            part.mkdir(parents=True, exist_ok=True)

    @property
    def home(self) -> Path:
        """HOME."""
        return self.folder / "home"

    @property
    def config(self) -> Path:
        """CLAUDE_CONFIG_DIR."""
        return self.folder / "config"

    @property
    def project(self) -> Path:
        """The folder it starts in."""
        return self.folder / "project"

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the caller's session or credentials; only the scripted API can be reached."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "CLAUDE_CONFIG_DIR": str(self.config),
            "ANTHROPIC_BASE_URL": self.base_url,
            "ANTHROPIC_API_KEY": "none",
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "IS_SANDBOX": "1",
        } | self.more

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs `claude ARGUMENTS` in the project."""
        return subprocess.run(
            [str(self.binary), *arguments],
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )

    def prompt(self, text: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Runs one prompt without a terminal and without permission dialogs."""
        return self.command("-p", text, "--permission-mode", "bypassPermissions", *options)

    def started(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts `claude ARGUMENTS` in the project, in a process group of its own, and does not wait."""
        return subprocess.Popen(
            [str(self.binary), *arguments],
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def messages(self, *arguments: str) -> Iterator[dict[str, Any]]:
        """Runs `claude -p ARGUMENTS` in the project and gives what it tells of the session, as it happens.

        Raises:
            TrainerError: it ended with an error, or told nothing that can be read.
        """
        with (
            tempfile.TemporaryFile("w+") as complaints,
            subprocess.Popen(
                [str(self.binary), "-p", *arguments, "--output-format", "stream-json", "--verbose"],
                cwd=self.project,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            ) as process,
        ):
            assert process.stdout is not None
            line = ""
            try:
                for line in process.stdout:
                    yield json.loads(line)
                status = process.wait(RUN_SECONDS)
            except (json.JSONDecodeError, subprocess.TimeoutExpired) as error:
                raise TrainerError(f"Claude Code told nothing that can be read: {line[:200]!r} ({error})") from None
            finally:
                process.kill()
            if status != 0:
                complaints.seek(0)
                said = complaints.read().strip() or line.strip()
                raise TrainerError(f"Claude Code ended with status {status}: {said[-300:]}")
