"""Is the exported model the trained one? Tokens and logits side by side.

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
        agreed += int((expected.argmax(-1) == found.argmax(-1)).sum())
        largest = max(largest, float(np.abs(expected - found).max()))
        expected_log, found_log = _log_softmax(expected), _log_softmax(found)
        divergence += float((np.exp(expected_log) * (expected_log - found_log)).sum())
        count += len(ids)
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
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(report.base, dtype="float32")
    if report.adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, report.adapter)
    plain = Path(report.plain.path)
    return ExportParity(
        plain=parity(plain, model.eval(), AutoTokenizer.from_pretrained(report.base), texts),
        quantized=gguf_parity(plain, Path(report.quantized.path), texts),
    )


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
