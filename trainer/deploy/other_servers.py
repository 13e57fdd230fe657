"""Servers other than Ollama: what they need beside the model, and the command that starts them.

Both are started by the user, on loopback, where the gateway expects the local model. Both get our chat template as a
file, so that no version of them falls back to a template of its own.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from pydantic import Field

from claude_capture.claude_trace_schema import Record
from trainer.config import DeployConfig
from trainer.deploy.admission import Candidate, changed
from trainer.errors import TrainerError
from trainer.export.export_records import Progress, sha256_of
from trainer.export.gguf_file import GgufFile
from trainer.run_folder import write_atomic
from trainer.student.chat_format import template_text

HOST = "127.0.0.1"


class ServerFiles(Record):
    """What was written, and how to start the server."""

    target: str = Field(description="llama-server or vllm")
    model: str = Field(description="GGUF file or folder of safetensors")
    template: str = Field(description="Chat template beside it")
    unit: str = Field(description="systemd unit beside it")
    command: list[str] = Field(description="Program and arguments")
    url: str = Field(description="Where it will listen")

    @property
    def line(self) -> str:
        """The command as a shell takes it."""
        return shlex.join(self.command)


def for_llama_server(candidate: Candidate, config: DeployConfig, progress: Progress | None = None) -> ServerFiles:
    """Template and unit for llama.cpp's own server.

    Raises:
        TrainerError: not a GGUF, or changed since it was registered.
    """
    path = candidate.path.resolve()
    file = GgufFile(path)
    if candidate.file is not None and sha256_of(path, progress) != candidate.file.sha256:
        raise changed(candidate.path)
    num_ctx = min(config.num_ctx, int(file.get("llama.context_length") or config.num_ctx))
    template = path.with_suffix(".jinja")
    command = [
        shutil.which("llama-server") or "llama-server",
        *("--model", str(path), "--alias", config.model),
        *("--host", HOST, "--port", str(config.port)),
        # the window is shared by the slots
        *("--ctx-size", str(num_ctx * config.slots), "--parallel", str(config.slots)),
        *("--jinja", "--chat-template-file", str(template)),
        *("--temp", "0", "--no-webui"),
    ]
    return _written("llama-server", path, template, path.with_suffix(".llama-server.service"), command, config)


def for_vllm(candidate: Candidate, config: DeployConfig, progress: Progress | None = None) -> ServerFiles:
    """Merged safetensors, template and unit for vLLM.

    Raises:
        TrainerError: the registry does not say which base and adapter the model was made from, or they are gone.
    """
    entry = candidate.entry
    if entry is None or not entry.base:
        raise TrainerError(
            f"{candidate.path}: vLLM takes safetensors, and no registry says which base and adapter it was made from; "
            "export it again with a current claude-trainer"
        )
    adapter = Path(entry.adapter) if entry.adapter is not None else None
    if adapter is not None and not adapter.is_dir():
        raise TrainerError(f"{adapter}: missing, {entry.name} was merged from it; train or export it again")
    from trainer.export.lora_merge import write_merged_checkpoint

    folder = candidate.path.resolve().parent / f"{entry.name}-vllm"
    write_merged_checkpoint(entry.base, adapter, folder, progress=progress)
    num_ctx = min(config.num_ctx, int(GgufFile(candidate.path).get("llama.context_length") or config.num_ctx))
    template = folder / "chat_template.jinja"
    command = [
        *(shutil.which("vllm") or "vllm", "serve", str(folder)),
        *("--served-model-name", config.model, "--host", HOST, "--port", str(config.port)),
        *("--max-model-len", str(num_ctx), "--max-num-seqs", str(config.slots)),
        *("--chat-template", str(template), "--generation-config", "vllm"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "llama3_json"),
    ]
    return _written("vllm", folder, template, folder.with_suffix(".service"), command, config)


def _written(
    target: str, model: Path, template: Path, unit: Path, command: list[str], config: DeployConfig
) -> ServerFiles:
    write_atomic(template, template_text(), 0o644)
    write_atomic(unit, unit_text(f"{config.model} on {target}", command), 0o644)
    url = f"http://{HOST}:{config.port}"
    return ServerFiles(
        target=target, model=str(model), template=str(template), unit=str(unit), command=command, url=url
    )


def unit_text(description: str, command: list[str]) -> str:
    """A systemd unit that a user can link: restarted where it fails, and with no right to write anywhere."""
    quoted = " ".join(_systemd_word(word) for word in command)
    lines = [
        *("[Unit]", f"Description={description}", ""),
        *("[Service]", f"ExecStart={quoted}", "Restart=on-failure", "RestartSec=5", "NoNewPrivileges=yes"),
        *("ProtectSystem=strict", "PrivateTmp=yes", "", "[Install]", "WantedBy=default.target"),
    ]
    return "\n".join(lines) + "\n"


def _systemd_word(word: str) -> str:
    """One word as systemd splits command lines: `%` and `$` stand for themselves only when doubled."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{plain}"' if plain != word or any(c in word for c in " '\t") else word
