"""Is the exported model the trained one? Tokens and logits side by side.

The base stays in memory as it is stored, 16 bit for 16 bit; products are computed in float32, one layer's weights at a
time, since a reference that rounds after every layer would disagree more often than the file does.

llama.cpp's cache is kept in float32 here. In service it is float16, which moves logits by about as much as the rounding
of the weights does (0.16 against 0.03 at most on the tiny base): that is a property of the server, not of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from claude_capture.claude_trace_schema import Record
from trainer.errors import TrainerError
from trainer.export.llama_runtime import GgufModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainer.export.checkpoint import Checkpoint
    from trainer.export.export_records import ExportReport

    Logits = Callable[[list[int]], NDArray[np.float32]]


class ParityReport(Record):
    """Agreement of a candidate's next-token predictions with a reference's, over every position."""

    argmax_agreement: float = Field(description="Share of positions with the same most likely token, in [0, 1]")
    max_logit_diff: float = Field(description="Largest absolute difference of two logits")
    kl: float = Field(description="Mean KL(reference ‖ candidate) per position, in nats")
    tokens: int = Field(description="Positions compared")


class TokenizerParity(Record):
    """Agreement of two tokenizers."""

    strings: int = Field(description="Strings compared")
    equal: int = Field(description="Strings with the same ids")
    first_difference: str | None = Field(default=None, description="The first string that differs, with both readings")


BLOCK_LOGITS = 4 << 20
"""Logits that are compared at a time: a long conversation over Llama 3's vocabulary has half a billion."""
RESERVE = 1.1
"""What the allocators cannot use because of their own gaps, and what is small."""


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normalised


def compare(reference: Logits, candidate: Logits, sequences: Sequence[list[int]]) -> ParityReport:
    """Runs both over the same token sequences.

    Raises:
        TrainerError: nothing to compare.
    """
    agreed, count, largest, divergence = 0, 0, 0.0, 0.0
    for ids in sequences:
        if not ids:
            continue
        expected, found = reference(ids), candidate(ids)
        count += len(ids)
        step = max(1, BLOCK_LOGITS // expected.shape[-1])
        for start in range(0, len(ids), step):
            one, other = expected[start : start + step], found[start : start + step]
            agreed += int((one.argmax(-1) == other.argmax(-1)).sum())
            largest = max(largest, float(np.abs(one - other).max()))
            one_log, other_log = _log_softmax(one), _log_softmax(other)
            divergence += float((np.exp(one_log) * (one_log - other_log)).sum())
    if count == 0:
        raise TrainerError("parity: no text to compare on; give at least one non-empty text")
    return ParityReport(
        argmax_agreement=agreed / count, max_logit_diff=largest, kl=max(0.0, divergence / count), tokens=count
    )


def _context_for(sequences: Sequence[list[int]]) -> int:
    return max(256, *(len(ids) for ids in sequences)) if sequences else 256


def parity(gguf: Path, hf_model: Any, tokenizer: Any, texts: Sequence[str]) -> ParityReport:
    """A GGUF against the transformers model that it was made from.

    Args:
        hf_model: causal language model in eval mode, adapter included.
        tokenizer: its tokenizer; both sides are fed the ids that it reads.
        texts: rendered conversations.
    """
    import torch

    sequences = [tokenizer.encode(text, add_special_tokens=False) for text in texts]

    def reference(ids: list[int]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits = hf_model(input_ids=torch.tensor([ids], device=hf_model.device)).logits[0]
        array: NDArray[np.float32] = logits.float().cpu().numpy()
        return array

    with GgufModel(gguf, n_ctx=_context_for(sequences), logits=True) as llama:
        return compare(reference, llama.logits, sequences)


def gguf_parity(reference: Path, candidate: Path, texts: Sequence[str]) -> ParityReport:
    """A quantised GGUF against the plain one."""
    with GgufModel(reference, vocab_only=True) as vocabulary:
        sequences = [vocabulary.encode(text) for text in texts]
    context = _context_for(sequences)
    with (
        GgufModel(reference, n_ctx=context, logits=True) as plain,
        GgufModel(candidate, n_ctx=context, logits=True) as quantised,
    ):
        return compare(plain.logits, quantised.logits, sequences)


class ExportParity(Record):
    """Both steps of an export, each against what it was made from."""

    plain: ParityReport = Field(description="f16 or bf16 GGUF against transformers; see trial.py for what is wanted")
    quantized: ParityReport = Field(description="Quantised GGUF against the plain one")


def export_parity(report: ExportReport, texts: Sequence[str]) -> ExportParity:
    """Loads base and adapter with transformers and peft, and compares both files of an export.

    Args:
        texts: rendered conversations, held-out ones where there are any.
    """
    plain = Path(report.plain.path)
    return ExportParity(
        plain=_with_transformers(report, plain, texts), quantized=gguf_parity(plain, Path(report.quantized.path), texts)
    )


def _with_transformers(report: ExportReport, plain: Path, texts: Sequence[str]) -> ParityReport:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(report.base, dtype="auto")
    if report.adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, report.adapter)
    compute_in_float32(model)
    return parity(plain, model.eval(), AutoTokenizer.from_pretrained(report.base), texts)


def compute_in_float32(model: Any) -> None:
    """Makes a model multiply in float32 and keep its weights as they are: those of one layer are widened at a time."""
    from functools import partial

    from torch import nn

    def multiplied(layer: Any, states: Any) -> Any:
        bias = layer.bias.float() if layer.bias is not None else None
        return nn.functional.linear(states.float(), layer.weight.float(), bias)

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.forward = partial(multiplied, module)
        elif isinstance(module, nn.Embedding):
            module.register_forward_hook(lambda _module, _given, embedded: embedded.float())


def memory_needed(base: Checkpoint, tokens: int) -> int:
    """Bytes that `export_parity` takes at its peak: the base, its widest matrix in float32, and four arrays of logits.

    Files that llama.cpp maps are not counted, the system can drop their pages; what it repacks of the quantised file
    takes the place of the base, which is let go before.

    Args:
        tokens: of the longest text.
    """
    logits = max(256, tokens) * int(base.config["vocab_size"]) * 4
    return int(RESERVE * (base.bytes + base.widest * 4 + 4 * logits))


def tokenizer_parity(llama: GgufModel, tokenizer: Any, texts: Sequence[str]) -> TokenizerParity:
    """llama.cpp's reading of every text against that of a transformers or `tokenizers` tokenizer."""
    equal, first = 0, None
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        expected = list(getattr(ids, "ids", ids))
        found = llama.encode(text)
        if found == expected:
            equal += 1
        elif first is None:
            first = f"{text!r}: llama.cpp {found}, trainer {expected}"
    return TokenizerParity(strings=len(texts), equal=equal, first_difference=first)
