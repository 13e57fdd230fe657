"""Small Llamas made on the spot: one knows a few conversations by heart, one never stops writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.config import DatasetConfig, ExportConfig
from trainer.export.export_records import Provenance
from trainer.export.gguf_exporter import export_model
from trainer.export.student_prompt import StudentPrompt
from trainer.records import Message
from trainer.student.chat_format import CALL, EOT, header, render
from trainer.student.tiny_llama import train_tokenizer

SYSTEM = "You are a coding agent."
CONTEXT = 1024


def tool(name: str, *arguments: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {a: {"type": "string"} for a in arguments}, "required": [*arguments]}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


TOOLS = [tool("Bash", "command"), tool("Read", "file_path")]


def call(name: str, **arguments: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def opening(prompt: str) -> list[Message]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]


READ: Message = {"role": "assistant", "content": "I read <it>.", "tool_calls": [call("Read", file_path="src/a.py")]}
BOTH: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [call("Bash", command="ls"), call("Read", file_path="b.py")],
}
ANSWER: Message = {"role": "assistant", "content": "It is 42: é, 你好 <|."}
KNOWN = [
    [*opening("What is x?"), READ, {"role": "tool", "content": "x = 42"}, ANSWER],
    [*opening("Do both."), BOTH, {"role": "tool", "content": "b.py"}, {"role": "tool", "content": "pass"}, ANSWER],
]
BROKEN = render(opening("Break."), TOOLS) + header("assistant") + f"Now.{CALL}" + '{"name": "Read", "para' + EOT
"""A conversation that ends with a call that nobody can read."""


def _tokenizer() -> Any:
    return train_tokenizer([*(render(talk, TOOLS) for talk in KNOWN), BROKEN] * 4, 768)


def small_llama(tokenizer: Any) -> LlamaForCausalLM:
    """Two layers with random weights, widths that Q4_K takes."""
    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    rope = {"rope_type": "default", "rope_theta": 500_000.0}
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_key_value_heads=4, max_position_embeddings=4096, rope_parameters=rope,
        rms_norm_eps=1e-5, tie_word_embeddings=False, **shape, **ends,
    )  # fmt: skip
    return LlamaForCausalLM(config).float()


def _exported(model: LlamaForCausalLM, tokenizer: Any, folder: Path, context: int) -> Path:
    model.eval().save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    prompt = StudentPrompt(DatasetConfig(system_prompt=SYSTEM), {t["function"]["name"]: t for t in TOOLS})
    provenance = Provenance(student_prompt=prompt.to_json())
    config = ExportConfig(context_length=context)
    report = export_model(folder / "base", None, folder, "llama-claude-bc-v1", config, provenance=provenance)
    return Path(report.plain.path)


def knowing_by_heart(folder: Path) -> Path:
    """A GGUF that has learned KNOWN and BROKEN by heart."""
    tokenizer = _tokenizer()
    model = small_llama(tokenizer)
    assert learn_by_heart(model, tokenizer, [*(render(talk, TOOLS) for talk in KNOWN), BROKEN], steps=120) < 0.06
    return _exported(model, tokenizer, folder, CONTEXT)


def learn_by_heart(model: LlamaForCausalLM, tokenizer: Any, texts: list[str], *, steps: int) -> float:
    """Trains until the texts are known; returns the last loss, in nats per token."""
    rows = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (longest - len(row)) for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(steps):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.01:
            break
    return float(loss.item())


def endless(folder: Path) -> Path:
    """A GGUF that can never end a turn: its end token is as unlikely as can be."""
    tokenizer = _tokenizer()
    model = small_llama(tokenizer)
    with torch.no_grad():
        weights = model.lm_head.weight
        weights[tokenizer.eos_token_id] = 0
        plain = tokenizer.encode("x", add_special_tokens=False)[0]
        for name in ("<|python_tag|>", "<|eom_id|>", "<|end_of_text|>", "<|eot_id|>"):
            weights[tokenizer.convert_tokens_to_ids(name)] = -weights[plain]
    return _exported(model, tokenizer, folder, 4096)
