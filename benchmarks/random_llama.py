"""Llamas made on the spot with the vocabulary layout of Llama 3: 128,000 byte-level tokens and 256 control tokens.

The real vocabulary may not be copied here. This one has its size, its ids, its split and its control tokens; its merges
are made up: all pairs of bytes, then triples, so that every text has a reading and merging has work to do. Weights are
random normal numbers. Used by the benchmarks of the exporter and by its test against llama.cpp's converter.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from trainer.export.llama_vocabulary import LLAMA3_SPLIT

BYTE_LEVEL_TOKENS = 128_000
CONTROL_TOKENS = 256
NAMED = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    4: "<|finetune_right_pad_id|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    8: "<|eom_id|>",
    9: "<|eot_id|>",
    10: "<|python_tag|>",
}
"""Control tokens of Llama 3.1 by their distance from the first; the others are reserved."""
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LLAMA_1B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
"""Shapes of Llama 3.2 1B: 1.24 billion parameters, 2.5 GB in 16 bit."""
SHARD_BYTES = 1 << 30


def control_tokens() -> list[str]:
    """The 256 control tokens, in the order of their ids."""
    reserved = (f"<|reserved_special_token_{number}|>" for number in itertools.count())
    return [NAMED.get(place) or next(reserved) for place in range(CONTROL_TOKENS)]


def write_tokenizer(folder: Path, template: str) -> None:
    """tokenizer.json and tokenizer_config.json as Llama 3.1 Instruct has them, vocabulary and merges made up."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = list(itertools.product(alphabet, alphabet))
    triples = ((left + right, third) for (left, right), third in itertools.product(pairs, alphabet))
    merges = [*pairs, *itertools.islice(triples, BYTE_LEVEL_TOKENS - len(alphabet) - len(pairs))]
    vocabulary = {token: index for index, token in enumerate([*alphabet, *map("".join, merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in control_tokens()])
    begin = processors.TemplateProcessing(
        single="<|begin_of_text|> $A",
        pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
        special_tokens=[("<|begin_of_text|>", BYTE_LEVEL_TOKENS)],
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), begin])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
        "pad_token": "<|finetune_right_pad_id|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 131_072,
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama's weights, in the order in which transformers saves them."""
    width, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], width)}
    for layer in range(config["num_hidden_layers"]):
        block = {
            "input_layernorm": (width,),
            "self_attn.q_proj": (queries, width),
            "self_attn.k_proj": (keys, width),
            "self_attn.v_proj": (keys, width),
            "self_attn.o_proj": (width, queries),
            "post_attention_layernorm": (width,),
            "mlp.gate_proj": (inner, width),
            "mlp.up_proj": (inner, width),
            "mlp.down_proj": (width, inner),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}
    shapes["model.norm.weight"] = (width,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    return shapes


def write_llama(folder: Path, template: str, seed: int = 0, **shape: Any) -> Path:
    """A whole checkpoint in bfloat16: config, tokenizer, shards of 1 GB with their index.

    Args:
        template: chat template of the tokenizer.
        shape: what differs from LLAMA_1B, by the names of config.json.
    """
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": BYTE_LEVEL_TOKENS + CONTROL_TOKENS,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": LLAMA3_ROPE,
        "attention_bias": False,
        "mlp_bias": False,
        "hidden_act": "silu",
        "dtype": "bfloat16",
        "bos_token_id": BYTE_LEVEL_TOKENS,
        "eos_token_id": [BYTE_LEVEL_TOKENS + 1, BYTE_LEVEL_TOKENS + 8, BYTE_LEVEL_TOKENS + 9],
        **LLAMA_1B,
        **shape,
    }
    write_tokenizer(folder, template)
    (folder / "config.json").write_text(json.dumps(config))
    draw = torch.Generator().manual_seed(seed)
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    files: dict[str, int] = {}
    for name, dimensions in tensor_shapes(config).items():
        values = torch.empty(dimensions, dtype=torch.bfloat16)
        if len(dimensions) == 1:
            values.fill_(1)
        else:
            values.normal_(0, 0.02, generator=draw)
        if size and size + values.nbytes > SHARD_BYTES:
            save_file(shards[-1], folder / f"shard-{len(shards)}", {"format": "pt"})
            shards[-1] = {}
            shards.append({})
            size = 0
        shards[-1][name] = values
        files[name] = len(shards)
        size += values.nbytes
    save_file(shards[-1], folder / f"shard-{len(shards)}", {"format": "pt"})
    names = {number: f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)}
    for number, file in names.items():
        (folder / f"shard-{number}").rename(folder / file)
    index = {"metadata": {}, "weight_map": {name: names[number] for name, number in files.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
