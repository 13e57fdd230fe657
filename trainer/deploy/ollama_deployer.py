"""A GGUF → the running model `cc-claude-agent:latest`, and back again.

    upload by digest → create cc-claude-agent:<sha12> → smoke test → copy to :latest

Nobody who uses `:latest` sees anything before the smoke test has passed. `:latest` is never created, only copied to:
creating it anew would delete the blobs of the model that it replaces, and with them the way back.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from claude_capture.claude_trace_schema import Record
from trainer.config import DeployConfig
from trainer.deploy.admission import Candidate, changed, context_window
from trainer.deploy.ollama_client import OllamaClient, OllamaError
from trainer.errors import TrainerError
from trainer.export.atomic_file import full_disk_told, locked
from trainer.export.doctor_corpus import TOOLS
from trainer.export.export_records import Progress, now, sha256_of
from trainer.export.gguf_file import GgufFile
from trainer.export.model_files import modelfile
from trainer.records import BCSample, Message
from trainer.run_folder import write_atomic
from trainer.student.chat_format import EOT, parse_assistant, render

LOG_NAME = "deployments.json"
SMOKE_TOKENS = 256


class SmokeTest(Record):
    """A question that a model must answer with a tool call before it is put into service."""

    messages: list[Message] = Field(description="Messages up to the point where the student is to call a tool")
    tools: list[dict[str, Any]] = Field(description="Tools offered")


class Deployment(Record):
    """One line of the log beside the GGUF files."""

    at: str = Field(description="ISO 8601 UTC")
    action: Literal["deploy", "rollback"] = Field(description="What was done")
    server: str = Field(description="URL of the server")
    model: str = Field(description="Name without tag")
    tag: str = Field(description="Immutable name that `latest` now is")
    previous: str | None = Field(default=None, description="Immutable name that `latest` was before")
    forced: str = Field(default="", description="Why it was deployed although gate or doctor did not pass")


class DeployReport(Record):
    """What a deployment or rollback did."""

    server: str = Field(description="URL of the server")
    version: str = Field(description="Its version")
    tag: str = Field(description="Immutable name, <model>:<first 12 digits of the file's SHA-256>")
    latest: str = Field(description="Name that users ask for")
    previous: str | None = Field(description="Immutable name that `latest` was before; the target of a rollback")
    uploaded: bool = Field(default=False, description="False where the server had the file already")
    num_ctx: int | None = Field(default=None, description="Context window baked in; at most what the file was made for")
    calls: list[str] = Field(default_factory=list, description="Tools that the smoke test saw called")
    modelfile: str | None = Field(default=None, description="Modelfile written beside the GGUF")
    seconds: float = Field(description="Time taken")


def default_smoke_test() -> SmokeTest:
    """Asks for the files of a folder."""
    messages = [
        {"role": "system", "content": "You are a coding agent. Work in small steps, use the tools, then answer."},
        {"role": "user", "content": "Which files are in this folder?"},
    ]
    return SmokeTest(messages=messages, tools=TOOLS)


def smoke_test_from(samples: Sequence[BCSample]) -> SmokeTest:
    """The first sample that opens with a tool call, up to that call; held-out samples are preferred.

    Raises:
        TrainerError: none does.
    """
    for sample in sorted(samples, key=lambda sample: sample.split != "test"):
        first = next((i for i, message in enumerate(sample.messages) if message["role"] == "assistant"), None)
        if first is not None and sample.messages[first].get("tool_calls"):
            return SmokeTest(messages=sample.messages[:first], tools=sample.tools)
    raise TrainerError("no sample opens with a tool call; a smoke test cannot be taken from this dataset")


def host_of(config: DeployConfig) -> str:
    """OLLAMA_HOST where it is set, else the config's host."""
    return os.environ.get("OLLAMA_HOST") or config.host


def modelfile_text(gguf: Path, num_ctx: int, licence: str | None) -> str:
    """The same model for people who use the command line: `ollama create NAME -f FILE`."""
    lines = [f"FROM ./{gguf.name}", f"PARAMETER num_ctx {num_ctx}", f'PARAMETER stop "{EOT}"']
    if licence:
        lines.append(f'LICENSE """{licence}"""')
    return "\n".join(lines) + "\n"


def _immutable(tags: dict[str, str], model: str) -> str | None:
    """The immutable name behind `<model>:latest`."""
    digest = tags.get(f"{model}:latest")
    names = [name for name, found in tags.items() if found == digest and name.startswith(f"{model}:")]
    return next((name for name in names if not name.endswith(":latest")), None)


def _smoke(client: OllamaClient, tag: str, test: SmokeTest) -> list[str]:
    prompt = render(test.messages, test.tools, generation_prompt=True)
    answer = client.generate(tag, prompt, max_tokens=SMOKE_TOKENS)
    turn = parse_assistant(answer)
    called = [call["function"]["name"] for call in turn.message.get("tool_calls", [])]
    offered = {tool["function"]["name"] for tool in test.tools}
    if turn.malformed or not called or not set(called) <= offered:
        raise TrainerError(
            f"{tag} failed the smoke test, latest is left as it was: asked {test.messages[-1]['content'][:60]!r} with "
            f"the tools {sorted(offered)} it answered {answer[:120]!r}"
        )
    return called


def read_log(folder: Path) -> list[Deployment]:
    """Every deployment from this folder, oldest first.

    Raises:
        TrainerError: the log cannot be understood.
    """
    path = folder / LOG_NAME
    if not path.exists():
        return []
    try:
        return [Deployment.model_validate(line) for line in json.loads(path.read_text("utf-8"))]
    except (ValueError, ValidationError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise TrainerError(f"{path}: not a log of deployments ({reason}); restore it or move it away") from None


def _point_latest(client: OllamaClient, folder: Path, entry: Deployment) -> None:
    """Makes `latest` what the entry says, one process at a time, and checks that it is.

    The log is written first: a process that is killed before the copy still knows the way back.
    """
    log, latest = folder / LOG_NAME, f"{entry.model}:latest"
    with full_disk_told(log), locked(folder / f".{LOG_NAME}.lock"):
        if entry.previous != entry.tag:
            entries = [*read_log(folder), entry]
            write_atomic(log, json.dumps([line.model_dump(mode="json") for line in entries], indent=1) + "\n")
        client.copy(entry.tag, latest)
        tags = client.tags()
    if tags.get(latest) != tags.get(entry.tag) or entry.tag not in tags:
        raise TrainerError(f"Ollama at {client.url}: {latest} is not {entry.tag} after the copy; check `ollama list`")


def _send(client: OllamaClient, candidate: Candidate, progress: Progress | None) -> tuple[str, bool]:
    """Brings the file to the server; returns its digest and whether bytes were sent.

    A registered file is read once: the server compares what arrives with the digest of the registry. Only where the
    server has that digest already, nothing arrives, and the file here is compared with it.
    """
    if candidate.file is None:
        digest = sha256_of(candidate.path, progress)
        return digest, client.upload(candidate.path, digest, progress)
    digest = candidate.file.sha256
    try:
        sent = client.upload(candidate.path, digest, progress)
    except OllamaError as error:
        if "digest mismatch" not in str(error):
            raise
        raise changed(candidate.path) from None
    if not sent and sha256_of(candidate.path, progress) != digest:
        raise changed(candidate.path)
    return digest, sent


def deploy(
    candidate: Candidate,
    config: DeployConfig,
    *,
    smoke: SmokeTest | None = None,
    progress: Progress | None = None,
    backoff: float = 0.5,
) -> DeployReport:
    """Puts a GGUF into service. Doing it twice changes nothing.

    Args:
        candidate: what `admission.admit` let in.
        smoke: what to ask before it goes into service; None asks for the files of a folder.
        backoff: seconds before the second try of a step.

    Raises:
        TrainerError: not a GGUF, changed since it was registered, no room beside it, the server does not answer,
            refuses or dies, or the smoke test fails; `latest` is what it was in all these cases.
    """
    started = time.monotonic()
    gguf = candidate.path
    read_log(gguf.parent)
    file = GgufFile(gguf)
    num_ctx = context_window(file, config)
    licence = file.get("general.license")
    with full_disk_told(gguf.parent):
        write_atomic(modelfile(gguf), modelfile_text(gguf, num_ctx, licence))
    with OllamaClient(host_of(config), backoff=backoff) as client:
        version = client.version()
        previous = _immutable(client.tags(), config.model)
        sha256, uploaded = _send(client, candidate, progress)
        tag = f"{config.model}:{sha256[:12]}"
        request: dict[str, Any] = {
            "model": tag,
            "files": {gguf.name: f"sha256:{sha256}"},
            "parameters": {"num_ctx": num_ctx, "stop": [EOT]},
        }
        if licence:
            request["license"] = [licence]
        client.create(request)
        calls = _smoke(client, tag, smoke or default_smoke_test())
        entry = Deployment(
            at=now(),
            action="deploy",
            server=client.url,
            model=config.model,
            tag=tag,
            previous=previous,
            forced=candidate.forced,
        )
        _point_latest(client, gguf.parent, entry)
        return DeployReport(
            server=client.url,
            version=version,
            tag=tag,
            latest=f"{config.model}:latest",
            previous=previous,
            uploaded=uploaded,
            num_ctx=num_ctx,
            calls=calls,
            modelfile=str(modelfile(gguf)),
            seconds=round(time.monotonic() - started, 2),
        )


def _earlier(log: list[Deployment], server: str, model: str, current: str | None) -> str | None:
    """What `latest` was before `current`: deployments are undone like a stack."""
    stack: list[str] = []
    for entry in log:
        if (entry.server, entry.model) != (server, model):
            continue
        if entry.action == "deploy":
            if entry.previous and not stack:
                stack.append(entry.previous)
            stack.append(entry.tag)
        elif entry.tag in stack:
            del stack[stack.index(entry.tag) + 1 :]
    if current in stack:
        del stack[stack.index(current) :]
    return stack[-1] if stack else None


def rollback(config: DeployConfig, folder: Path, *, to: str | None = None, backoff: float = 0.5) -> DeployReport:
    """Makes `latest` an earlier model again, and checks that it is.

    Args:
        folder: where the GGUF files and their log lie, usually `models/`.
        to: immutable name or its tag; None takes what `latest` was before.

    Raises:
        TrainerError: nothing earlier is known, or the server no longer has it.
    """
    started = time.monotonic()
    latest = f"{config.model}:latest"
    with OllamaClient(host_of(config), backoff=backoff) as client:
        version = client.version()
        tags = client.tags()
        current = _immutable(tags, config.model)
        if to is not None:
            target: str | None = to if ":" in to else f"{config.model}:{to}"
        else:
            target = _earlier(read_log(folder), client.url, config.model, current)
        known = sorted(name for name in tags if name.startswith(f"{config.model}:") and name != latest)
        if target is None:
            raise TrainerError(
                f"no deployment before {current or latest} is known in {folder / LOG_NAME}; name one with --to, "
                f"the server has: {', '.join(known) or 'none'}"
            )
        if target not in tags:
            raise TrainerError(f"Ollama at {client.url} has no {target}; it has: {', '.join(known) or 'none'}")
        entry = Deployment(
            at=now(), action="rollback", server=client.url, model=config.model, tag=target, previous=current
        )
        _point_latest(client, folder, entry)
        return DeployReport(
            server=client.url,
            version=version,
            tag=target,
            latest=latest,
            previous=current,
            seconds=round(time.monotonic() - started, 2),
        )
