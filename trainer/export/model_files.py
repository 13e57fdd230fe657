"""What lies beside an exported model, name by name: written by several stages, removed together by `models gc`."""

from __future__ import annotations

from pathlib import Path

REFUSED = "refused"
"""Folder of the latest export that the doctor found unfit; the next export removes it."""


def plain_file(models: Path, name: str) -> Path:
    """The 16-bit GGUF."""
    return models / f"{name}.gguf"


def quantized_file(models: Path, name: str, kind: str) -> Path:
    """The GGUF that is put into service; `kind` as llama.cpp names it, in any case."""
    return models / f"{name}-{kind.lower()}.gguf"


def adapter_file(models: Path, name: str) -> Path:
    """The adapter alone."""
    return models / f"{name}-lora.gguf"


def card_file(models: Path, name: str) -> Path:
    """The model card."""
    return models / f"{name}.md"


def scores_file(models: Path, name: str) -> Path:
    """What its student earned per held-out prompt."""
    return models / f"{name}-scores.json"


def modelfile(gguf: Path) -> Path:
    """For `ollama create NAME -f FILE`."""
    return gguf.with_suffix(".Modelfile")


def template_file(gguf: Path) -> Path:
    """Chat template for llama-server."""
    return gguf.with_suffix(".jinja")


def llama_server_unit(gguf: Path) -> Path:
    """systemd unit of llama-server."""
    return gguf.with_name(f"{_unit_name(gguf.stem)}.llama-server.service")


def vllm_folder(models: Path, name: str) -> Path:
    """Merged safetensors."""
    return models / f"{name}-vllm"


def vllm_unit(models: Path, name: str) -> Path:
    """systemd unit of vLLM."""
    return models / f"{_unit_name(name)}-vllm.service"


def _unit_name(name: str) -> str:
    """A name as systemd.unit(5) allows it: ASCII letters, digits and a few marks."""
    return "".join(c if c.isascii() and (c.isalnum() or c in ":-_.") else "_" for c in name)


def belongings(models: Path, name: str, ggufs: list[Path]) -> list[Path]:
    """Everything that may lie in the folder because of one model, whether it is there or not.

    Args:
        ggufs: its GGUF files, those of earlier exports under the same name included.
    """
    beside = [make(gguf) for gguf in ggufs for make in (modelfile, template_file, llama_server_unit)]
    by_name = [make(models, name) for make in (adapter_file, card_file, scores_file, vllm_folder, vllm_unit)]
    return [*ggufs, *beside, *by_name]
