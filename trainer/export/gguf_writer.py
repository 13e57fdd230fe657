"""Hugging Face Llama weights → one GGUF file, a few rows at a time.

The layout is that of llama.cpp's own converter (convert_hf_to_gguf.py), which refuses a tokenizer that it has not seen
before; the differences are deliberate: the chat template is ours, the end of sequence is the end of a turn, and
`add_bos_token` is false because the template writes the one BOS itself.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import gguf
import numpy as np
import torch

from trainer.errors import TrainerError
from trainer.export.export_records import METADATA_PREFIX, Progress, Provenance
from trainer.export.llama_vocabulary import PRE_TOKENIZER, Vocabulary
from trainer.export.lora_adapter import MergedWeights

PERMUTED = ("q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias")
"""Tensors whose rows llama.cpp wants in another order."""
_ROPE_FIELDS = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
"""What a type of RoPE cannot do without."""
_F32 = gguf.GGMLQuantizationType.F32
_DTYPES = {
    gguf.GGMLQuantizationType.F32: torch.float32,
    gguf.GGMLQuantizationType.F16: torch.float16,
    gguf.GGMLQuantizationType.BF16: torch.bfloat16,
}


class PlannedTensor(NamedTuple):
    """A tensor of the file to be written."""

    name: str
    """In the GGUF."""
    source: str
    """In the checkpoint; errors name it."""
    shape: tuple[int, ...]
    type: gguf.GGMLQuantizationType
    blocks: Callable[[], Iterator[torch.Tensor]]
    """Its rows in order, a few at a time."""


@dataclass(frozen=True)
class LlamaShape:
    """What the GGUF header says about the network; read from config.json."""

    vocab_size: int
    width: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    rms_eps: float
    max_positions: int
    tied: bool
    rope: dict[str, Any]
    """transformers' `rope_parameters`: rope_type, rope_theta, factor …"""

    @classmethod
    def of(cls, config: dict[str, Any]) -> LlamaShape:
        """Reads config.json of transformers 4 and 5 alike (`rope_scaling` became `rope_parameters`).

        Raises:
            TrainerError: its type of RoPE lacks a number.
        """
        rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
        rope.setdefault("rope_type", rope.get("type", "default"))
        rope.setdefault("rope_theta", config.get("rope_theta", 10_000.0))
        for field in ("rope_theta", *_ROPE_FIELDS.get(rope["rope_type"], ())):
            if not isinstance(rope.get(field), int | float):
                raise TrainerError(
                    f"the base's config.json: RoPE of type {rope['rope_type']!r} has {field} {rope.get(field)!r}; "
                    "download or save the base again"
                )
        heads = config["num_attention_heads"]
        return cls(
            vocab_size=config["vocab_size"],
            width=config["hidden_size"],
            feed_forward=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_size=config.get("head_dim") or config["hidden_size"] // heads,
            rms_eps=config["rms_norm_eps"],
            max_positions=config["max_position_embeddings"],
            tied=bool(config.get("tie_word_embeddings", False)),
            rope=rope,
        )


def rope_factors(shape: LlamaShape) -> torch.Tensor | None:
    """Divisors of the RoPE frequencies, [head_size / 2] in float32; None where the rope type is not llama3.

    Formula: `_compute_llama3_parameters` of transformers. llama.cpp reads them as the tensor `rope_freqs.weight` and
    knows no other way to say it: without the tensor a Llama 3.1 loses its way in long contexts.
    """
    rope = shape.rope
    if rope["rope_type"] != "llama3":
        return None
    steps = torch.arange(0, shape.head_size, 2, dtype=torch.float32) / shape.head_size
    wavelength = 2 * math.pi * rope["rope_theta"] ** steps
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    original = rope["original_max_position_embeddings"]
    smooth = ((original / wavelength - low) / (high - low)).clamp(0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


def permute(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key projection, [heads · size, …], from halves (Hugging Face) to pairs (llama.cpp)."""
    size = weight.shape[0] // heads
    return weight.reshape(heads, 2, size // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _write_header(writer: gguf.GGUFWriter, shape: LlamaShape, context_length: int, float_type: str) -> None:
    writer.add_block_count(shape.layers)
    writer.add_context_length(context_length)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.rms_eps)
    writer.add_rope_freq_base(shape.rope["rope_theta"])
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_vocab_size(shape.vocab_size)
    kind = shape.rope["rope_type"]
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(shape.rope["factor"])
    elif kind not in ("default", "llama3"):
        raise TrainerError(f"rope type {kind!r} is not exported; known are default, linear and llama3")
    file_type = gguf.LlamaFileType.MOSTLY_BF16 if float_type == "bf16" else gguf.LlamaFileType.MOSTLY_F16
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _write_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary, template: str) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.roles["bos"])
    writer.add_eos_token_id(vocabulary.roles["eos"])
    writer.add_eot_token_id(vocabulary.roles["eot"])
    writer.add_eom_token_id(vocabulary.roles["eom"])
    if "padding" in vocabulary.roles:
        writer.add_pad_token_id(vocabulary.roles["padding"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(template)


def _write_provenance(writer: gguf.GGUFWriter, name: str, shape: LlamaShape, provenance: Provenance) -> None:
    writer.add_type("model")
    writer.add_name(name)
    if provenance.licence:
        writer.add_license(provenance.licence)
    if provenance.base_model:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, provenance.base_model)
    writer.add_array(f"{METADATA_PREFIX}teachers", provenance.teachers)
    writer.add_string(f"{METADATA_PREFIX}dataset_hash", provenance.dataset_hash)
    writer.add_string(f"{METADATA_PREFIX}parent", provenance.parent or "")
    if provenance.student_prompt:
        writer.add_string(f"{METADATA_PREFIX}student_prompt", provenance.student_prompt)
    writer.add_string(f"{METADATA_PREFIX}rope_type", shape.rope["rope_type"])


class _Data:
    """The part of the file behind the header: blocks of tensors in the type of the file, hashed as they pass."""

    def __init__(self, stream: IO[bytes], header: bytes, alignment: int) -> None:
        self._stream, self._alignment = stream, alignment
        self._digest = hashlib.sha256(header)
        self._buffers: dict[torch.dtype, torch.Tensor] = {}
        self.written = 0

    def _write(self, data: memoryview | bytes) -> None:
        self._stream.write(data)
        self._digest.update(data)
        self.written += len(data)

    def block(self, name: str, rows: torch.Tensor, dtype: torch.dtype) -> None:
        """Rounds a block and writes it.

        Raises:
            TrainerError: NaN, infinity, or a value beyond the range of f16.
        """
        count = rows.numel()
        buffer = self._buffers.get(dtype)
        if buffer is None or buffer.numel() < count:
            buffer = self._buffers[dtype] = torch.empty(count, dtype=dtype)
        rounded = buffer[:count].view(rows.shape).copy_(rows)
        if not all(bool(torch.isfinite(end)) for end in rounded.aminmax()):  # both ends carry any NaN on
            if torch.isfinite(rows).all():
                raise TrainerError(
                    f'tensor {name} holds values beyond the range of f16; set export.float_type = "bf16"'
                )
            raise TrainerError(f"tensor {name} holds NaN or infinite values: training diverged or the file is broken")
        self._write(memoryview(rounded.view(torch.uint8).flatten().numpy()))

    def pad(self) -> None:
        """Zeros up to where the next tensor begins."""
        self._write(bytes(-self.written % self._alignment))

    def hexdigest(self) -> str:
        """SHA-256 of the whole file, header included."""
        return self._digest.hexdigest()


def write_tensors(
    writer: gguf.GGUFWriter, path: Path, tensors: Sequence[PlannedTensor], progress: Progress | None = None
) -> str:
    """Finishes a GGUF whose header fields are set: tensor table, then the tensors, a few rows at a time.

    Args:
        path: the file that `writer` was made with.

    Returns:
        SHA-256 of the file, 64 hex digits.
    """
    for tensor in tensors:
        width = _DTYPES[tensor.type].itemsize
        size = math.prod(tensor.shape) * width
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.int16), size, raw_dtype=tensor.type)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        assert writer.fout is not None
        stream = writer.fout[0]
        stream.write(bytes(-stream.tell() % writer.data_alignment))
        stream.flush()
        data = _Data(stream, path.read_bytes(), writer.data_alignment)
        total = sum(ti.nbytes for ti in writer.tensors[0].values())
        for tensor in tensors:
            for rows in tensor.blocks():
                data.block(tensor.source, rows, _DTYPES[tensor.type])
                if progress is not None:
                    progress("writing", min(data.written, total), total)
            data.pad()
    finally:
        writer.close()
    return data.hexdigest()


def _plan(shape: LlamaShape, float_type: str, weights: MergedWeights) -> list[PlannedTensor]:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, shape.layers)
    matrix = gguf.GGMLQuantizationType.BF16 if float_type == "bf16" else gguf.GGMLQuantizationType.F16
    factors = rope_factors(shape)
    planned = []
    if factors is not None:
        single = [factors]
        planned.append(
            PlannedTensor("rope_freqs.weight", "rope_freqs", tuple(factors.shape), _F32, lambda: iter(single))
        )
    for source, size in weights.shapes.items():
        if (source == "lm_head.weight" and shape.tied) or source.endswith("rotary_emb.inv_freq"):
            continue
        target = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise TrainerError(f"tensor {source} is not part of a Llama; is this the right base?")
        kind = _F32 if len(size) == 1 else matrix
        blocks = partial(_llama_rows, weights, source, shape.head_size)
        planned.append(PlannedTensor(target, source, size, kind, blocks))
    needed = {"token_embd.weight", "output_norm.weight", *([] if shape.tied else ["output.weight"])}
    missing = needed - {tensor.name for tensor in planned}
    if missing:
        raise TrainerError(f"the base has no tensor for {sorted(missing)[0]}; its files are incomplete")
    return planned


def _llama_rows(weights: MergedWeights, name: str, head_size: int) -> Iterator[torch.Tensor]:
    """A tensor's rows in the order in which llama.cpp wants them."""
    if not name.endswith(PERMUTED):
        yield from weights.blocks(name)
        return
    for rows in weights.blocks(name, head_size):
        yield permute(rows, rows.shape[0] // head_size)


def write_gguf(
    path: Path,
    *,
    name: str,
    shape: LlamaShape,
    context_length: int,
    float_type: Literal["f16", "bf16"],
    vocabulary: Vocabulary,
    template: str,
    weights: MergedWeights,
    provenance: Provenance,
    progress: Progress | None = None,
) -> tuple[int, str]:
    """Writes `path` (not atomically: the caller gives a temporary name).

    Args:
        weights: Hugging Face names; 2-d tensors become `float_type`, 1-d ones float32.

    Returns:
        Number of tensors, and the SHA-256 of the file.

    Raises:
        TrainerError: a tensor that a Llama does not have, a missing one, or values that are not finite.
    """
    planned = _plan(shape, float_type, weights)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.LLAMA])
    _write_provenance(writer, name, shape, provenance)
    _write_header(writer, shape, context_length, float_type)
    _write_vocabulary(writer, vocabulary, template)
    return len(planned), write_tensors(writer, path, planned, progress)
