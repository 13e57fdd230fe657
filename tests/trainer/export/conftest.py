"""Small Llamas made on the spot: one that has learned a conversation by heart, and random ones of every shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.config import ExportConfig
from trainer.export.export_records import ExportReport, Provenance
from trainer.export.gguf_exporter import export_model
from trainer.records import Message
from trainer.student.chat_format import ParsedTurn, encode, render
from trainer.student.tiny_llama import train_tokenizer

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "Query",
            "description": "Run SQL on a database.",
            "parameters": {
                "type": "object",
                "properties": {"database": {"type": "string"}, "sql": {"type": "string"}},
                "required": ["database", "sql"],
            },
        },
    }
]
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SQL = "SELECT id, kva FROM transformers WHERE id IN (1, 2)"
ROWS = "1|630\n2|1000"
ANSWER = "Transformer 1 has 630 kVA, transformer 2 has 1000 kVA."
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}


def query_call(call_id: str = "call_0") -> dict[str, Any]:
    arguments = {"database": "grid.db", "sql": SQL}
    return {"id": call_id, "type": "function", "function": {"name": "Query", "arguments": arguments}}


OPENING: list[Message] = [
    {"role": "system", "content": "You are a coding agent."},
    {"role": "user", "content": "What's the difference between transformer 1 and transformer 2?"},
]
CONVERSATION: list[Message] = [
    *OPENING,
    {"role": "assistant", "content": "I read both rows.", "tool_calls": [query_call()]},
    {"role": "tool", "content": ROWS, "tool_call_id": "call_0"},
    {"role": "assistant", "content": ANSWER},
]


class Database:
    """An environment that answers the one query, and remembers what was asked."""

    tools = TOOLS

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def reset(self) -> list[Message]:
        return list(OPENING)

    def step(self, turn: ParsedTurn) -> list[Message] | None:
        calls = turn.message.get("tool_calls", [])
        self.asked += [call["function"]["arguments"] for call in calls]
        if not calls:
            return None
        return [{"role": "tool", "content": ROWS, "tool_call_id": call["id"]} for call in calls]


@pytest.fixture
def database() -> type[Database]:
    return Database


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    texts = [render(CONVERSATION, TOOLS)] * 4 + [
        "Grüße aus Zürich, прывітанне, 你好，世界 — numbers 1234567 and code: def f(x):\n\treturn x + 1\n"
    ] * 2
    return train_tokenizer(texts, 768)


Folder = Path
MakeBase = Callable[..., Path]


def new_llama(tokenizer: Any, **changes: Any) -> LlamaForCausalLM:
    """A random Llama whose widths are multiples of 256, so that K-quants apply."""
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**shape, **changes})).float().eval()


@pytest.fixture(scope="session")
def make_base(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> MakeBase:
    def make(**changes: Any) -> Path:
        shard_size = changes.pop("max_shard_size", "1GB")
        folder = tmp_path_factory.mktemp("base")
        new_llama(tokenizer, **changes).save_pretrained(folder, max_shard_size=shard_size)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def make_adapter() -> Callable[..., tuple[Path, Any]]:
    """Saves an adapter whose factors are all random; returns its folder and the model that it sits on."""

    def make(base: Path, folder: Path, **changes: Any) -> tuple[Path, Any]:
        settings = {"r": 8, "lora_alpha": 16, "target_modules": ALL_LINEAR, "task_type": "CAUSAL_LM", **changes}
        model = get_peft_model(LlamaForCausalLM.from_pretrained(base), LoraConfig(**settings))
        torch.manual_seed(1)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "modules_to_save" in name or "lora_A" in name or "lora_B" in name:
                    weight.normal_(0, 0.05)
                elif "magnitude" in name:
                    weight.mul_(1.25)
        model.save_pretrained(folder)
        return folder, model

    return make


@pytest.fixture(scope="session")
def learned(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base (GQA, llama3 RoPE) that has learned CONVERSATION by heart, what was given in it included."""
    model = new_llama(tokenizer, num_key_value_heads=2, rope_parameters=LLAMA3_ROPE)
    sample = encode(tokenizer, CONVERSATION, TOOLS)
    ids = torch.tensor([sample.ids])
    labels = ids.clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(80):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.005:
            break
    assert loss.item() < 0.02
    folder = tmp_path_factory.mktemp("learned")
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def conversation() -> tuple[list[Message], list[dict[str, Any]]]:
    """What `learned` knows by heart, with its tools."""
    return list(CONVERSATION), list(TOOLS)


@pytest.fixture(scope="session")
def learned_text() -> str:
    """What `learned` knows by heart."""
    return render(CONVERSATION, TOOLS)


class Exported(NamedTuple):
    report: ExportReport
    plain: Path
    quantized: Path


@pytest.fixture(scope="session")
def exported(learned: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    provenance = Provenance(
        base_model="tiny", licence="apache-2.0", teachers=["scripted-teacher-1"], dataset_hash="0123456789ab"
    )
    report = export_model(
        learned,
        None,
        tmp_path_factory.mktemp("models"),
        "llama-claude-bc-v1",
        ExportConfig(context_length=2048),
        provenance=provenance,
    )
    return Exported(report, Path(report.plain.path), Path(report.quantized.path))
