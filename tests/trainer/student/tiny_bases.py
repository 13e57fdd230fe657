"""A base small enough to be made inside a test."""

from __future__ import annotations

from pathlib import Path

from trainer.config import TinyLlama
from trainer.student.chat_format import render
from trainer.student.tiny_llama import make_tiny_base

SHAPE = TinyLlama(vocab_size=512, layers=2, intermediate_size=256, heads=4, kv_heads=4, copy_steps=2)
TEXTS = [
    render(
        [
            {"role": "system", "content": "You are an agent."},
            {"role": "user", "content": f"Where is constant {name}? It was {number}."},
            {"role": "assistant", "content": f"I search for {name}, not {number}."},
        ]
    )
    for number, name in enumerate(["MAX_LOAD", "MIN_TEMP", "Oakridge", "Elmwood", "retry_limit"] * 4)
]


def tiny_base(cache: Path) -> str:
    """Folder of the base."""
    return str(make_tiny_base(SHAPE, TEXTS, cache))
