"""A contract server per test, and small GGUF files that differ."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "contract"))

from ollama_server import OllamaServer


@pytest.fixture
def ollama(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[OllamaServer]:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    with OllamaServer(tmp_path / "ollama") as server:
        yield server


@pytest.fixture
def make_gguf(tmp_path: Path) -> Any:
    """A real GGUF of about `size` bytes; the server never looks at its tensors."""

    def make(name: str, *, size: int = 4096, context: int = 2048) -> Path:
        path = tmp_path / "models" / f"{name}.gguf"
        path.parent.mkdir(exist_ok=True)
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_name(name)
        writer.add_license("apache-2.0")
        writer.add_context_length(context)
        writer.add_tensor("token_embd.weight", np.zeros(size // 4, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return make
