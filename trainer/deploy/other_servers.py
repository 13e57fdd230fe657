"""Servers other than Ollama: what they need beside the model, and the command that starts them.

Both are started by the user, on loopback, where the gateway expects the local model. Both get our chat template as a
file, so that no version of them falls back to a template of its own.

The systemd units are for a person's own service manager. What keeps a service from writing works there only together
with PrivateUsers= (systemd.exec(5)); the one folder left to it is a cache of its own, because vLLM compiles on start.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from pydantic import Field

from claude_capture.claude_trace_schema import Record
from trainer.config import DeployConfig
from trainer.deploy.admission import Candidate, changed, context_window
from trainer.errors import TrainerError
from trainer.export.export_records import Progress, sha256_of
from trainer.export.gguf_file import GgufFile
from trainer.export.model_files import llama_server_unit, template_file, vllm_folder, vllm_unit
from trainer.run_folder import write_atomic
from trainer.student.chat_format import template_text

HOST = "127.0.0.1"
_CACHE = "%C/%p"
_LLAMA_SERVER_ENVIRONMENT = {"XDG_CACHE_HOME": _CACHE, "CUDA_CACHE_PATH": f"{_CACHE}/cuda"}
_VLLM_ENVIRONMENT = _LLAMA_SERVER_ENVIRONMENT | {
    "TRITON_CACHE_DIR": f"{_CACHE}/triton",
    "FLASHINFER_WORKSPACE_BASE": _CACHE,
    "NUMBA_CACHE_DIR": f"{_CACHE}/numba",
    "VLLM_NO_USAGE_STATS": "1",  # sent out, and kept in ~/.config
}
"""What a start compiles is kept all over the home folder; these bring it into the unit's own cache."""


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
    num_ctx = context_window(file, config)
    template = template_file(path)
    command = [
        shutil.which("llama-server") or "llama-server",
        *("--model", str(path), "--alias", config.model),
        *("--host", HOST, "--port", str(config.port)),
        # the window is shared by the slots
        *("--ctx-size", str(num_ctx * config.slots), "--parallel", str(config.slots)),
        *("--jinja", "--chat-template-file", str(template)),
        *("--temp", "0", "--no-webui"),
    ]
    return _written("llama-server", path, template, llama_server_unit(path), command, _LLAMA_SERVER_ENVIRONMENT, config)


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

    models = candidate.path.resolve().parent
    folder = vllm_folder(models, entry.name)
    write_merged_checkpoint(entry.base, adapter, folder, progress=progress)
    num_ctx = context_window(GgufFile(candidate.path), config)
    template = folder / "chat_template.jinja"
    command = [
        *(shutil.which("vllm") or "vllm", "serve", str(folder)),
        *("--served-model-name", config.model, "--host", HOST, "--port", str(config.port)),
        *("--max-model-len", str(num_ctx), "--max-num-seqs", str(config.slots)),
        *("--chat-template", str(template), "--generation-config", "vllm"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "llama3_json"),
    ]
    return _written("vllm", folder, template, vllm_unit(models, entry.name), command, _VLLM_ENVIRONMENT, config)


def _written(
    target: str,
    model: Path,
    template: Path,
    unit: Path,
    command: list[str],
    environment: dict[str, str],
    config: DeployConfig,
) -> ServerFiles:
    write_atomic(template, template_text(), 0o644)
    write_atomic(unit, unit_text(f"{config.model} on {target}", command, environment), 0o644)
    url = f"http://{HOST}:{config.port}"
    return ServerFiles(
        target=target, model=str(model), template=str(template), unit=str(unit), command=command, url=url
    )


def unit_text(description: str, command: list[str], environment: dict[str, str]) -> str:
    """A systemd unit that a user can link: restarted where it fails, and with one folder to write to, a cache.

    Args:
        environment: variables; their specifiers count: %C is the folder of caches, usually ~/.cache, and %p the unit's
            name without its suffix.
    """
    program, *arguments = command
    # `$` stands for itself in the program, which may not be a variable
    words = [
        _quoted(program.replace("%", "%%")),
        *(_quoted(w.replace("%", "%%").replace("$", "$$")) for w in arguments),
    ]
    lines = [
        *("[Unit]", f"Description={description.replace('%', '%%')}", ""),
        *("[Service]", "Type=exec", f"ExecStart={' '.join(words)}", "Restart=on-failure", "RestartSec=5"),
        *("NoNewPrivileges=yes", "PrivateUsers=yes", "ProtectSystem=strict", "PrivateTmp=yes", "CacheDirectory=%p"),
        *(f"Environment={name}={value}" for name, value in environment.items()),
        *("", "[Install]", "WantedBy=default.target"),
    ]
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    """One word as systemd splits command lines."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"' if plain != word or any(c in word for c in " '\t") else word
