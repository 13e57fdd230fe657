"""The embedded base: a Llama of about 3M parameters with a tokenizer of its own, made on the spot.

A random Llama of this size does not learn to copy arguments within minutes. Two things change that: attention that
starts as an induction circuit, and a warm-up on copying and recalling random tokens. Neither has seen a word of
anybody's data: what the base knows of tools it learns in SFT.

Induction circuit (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; Olsson et al. 2022): heads
of layer 0 attend to the token before, the one before that and the third, and write copies of them to places of their
own. A head of layer 1 looks for positions whose previous token equals the current one and copies what stands there; the
others do so across a gap, from `key between value` to `key other`. Without those heads recall across a gap was not
learned in minutes in any trial; with them it grows from the first steps.
"""

from __future__ import annotations

import contextlib
import math
import random
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trainer.config import TinyLlama
from trainer.run_folder import content_hash
from trainer.student.chat_format import BOS, EOT, template_text

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
PAD = "<|finetune_right_pad_id|>"
SPECIAL_TOKENS = [
    BOS,
    "<|end_of_text|>",
    PAD,
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    EOT,
    "<|python_tag|>",
]
LOOKS_BACK = 3
"""Tokens back that heads of layer 0 see."""
MATCHES = ((0, 1), (1, 2), (1, 3), (2, 3))
"""What heads of layer 1 match: the token so far back of here, with the one so far back of there. (0, 1) is induction;
the others step over what stands between a key and its value: 1 token here and 1 there, 1 and 2, 2 and 2."""
LONG_BETWEEN = 0.25
"""Share of tables and questions with up to two tokens between key and value; else one."""
RECIPE = 4
"""Part of the cache key: raise it when this file makes a different base from the same config."""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE that splits as Llama 3 does, with Llama 3's control tokens behind the ordinary ones.

    While the merges are learned, digits stand alone, and capitalised words stand apart from what is before them: a
    number is then always the same row of digits and a name the same token in prose, in JSON and in SQL, which is what
    makes them easy to copy. Ordinary words keep their space, which makes texts a third shorter. At run time the split
    is Llama 3's, so that llama.cpp's `llama-bpe` reads the same tokens.
    """
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    llama3 = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated")
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"<\|[a-z_]+\|>"), "removed"),
            llama3,
            pre_tokenizers.Split(Regex(r"\p{N}|\p{Lu}\p{L}*|[ _]?\p{Ll}+"), "isolated"),
            byte_level,
        ]
    )
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size - len(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
            special_tokens=[],
        ),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([llama3, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    special = list(SPECIAL_TOKENS)
    while tokenizer.get_vocab_size() + len(special) < vocab_size:  # a small corpus yields fewer merges
        special.append(f"<|reserved_special_token_{len(special) - len(SPECIAL_TOKENS)}|>")
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOT,
        pad_token=PAD,
        chat_template=template_text(),
        clean_up_tokenization_spaces=False,
    )


def new_model(shape: TinyLlama, tokenizer: Any, seed: int) -> LlamaForCausalLM:
    """The untrained Llama, its first two layers set up as an induction circuit."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.max_positions,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embed" not in name and "lm_head" not in name:
                narrow = 0.5 if "o_proj" in name or "down_proj" in name else 1.0
                weight.normal_(0, narrow / math.sqrt(weight.shape[1]))
        if shape.heads == shape.kv_heads:
            _set_induction_circuit(model)
    return model


def _orthogonal(rows: int, columns: int) -> torch.Tensor:
    """A random [rows, columns] matrix with orthonormal rows or columns, whichever are fewer."""
    basis = torch.linalg.qr(torch.randn(max(rows, columns), min(rows, columns)))[0]
    return basis if rows >= columns else basis.T


def _set_induction_circuit(model: LlamaForCausalLM) -> None:
    """Writes heads that look a few tokens back into layer 0, and matching-and-copying heads into layer 1."""
    config = model.config
    width, heads = config.hidden_size, config.num_attention_heads
    size = width // heads
    half = size // 2
    frequencies = 1 / config.rope_parameters["rope_theta"] ** (torch.arange(0, size, 2).float() / size)
    embedding = model.model.embed_tokens.weight
    # A shared direction in every embedding gives queries and keys a constant to work with.
    sign = torch.randint(0, 2, (width,)).float() * 2 - 1
    unit = sign / width**0.5
    embedding.normal_(0, 1.0)
    model.lm_head.weight.copy_(embedding * 0.02)
    embedding.add_(sign)
    first, second = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    for attention in (first, second):
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
            projection.weight.mul_(0.3)
    read = _orthogonal(size, width)
    read = read - (read @ unit)[:, None] * unit
    # The token `back` before this one: the constant, rotated back so far in the fast frequencies, peaks there. Head
    # after head writes a copy of what it finds to a place of its own.
    fast = [index for index in range(half) if frequencies[index] > 0.03]
    gain = 0.5 * (16 / len(fast)) ** 0.5
    write = _orthogonal(width, width)
    reach = min(LOOKS_BACK, heads)
    for head, back in enumerate(range(1, reach + 1)):
        rows = slice(head * size, (head + 1) * size)
        for index in fast:
            first.q_proj.weight[rows][index] += gain * unit
            first.k_proj.weight[rows][index] += gain * unit * (back * frequencies[index]).cos()
            first.k_proj.weight[rows][half + index] += gain * unit * (back * frequencies[index]).sin()
        first.v_proj.weight[rows] = read
        first.o_proj.weight[:, rows] = 1.5 * write[:, rows]
    found = {0: read} | {back: write[:, (back - 1) * size : back * size].T for back in range(1, reach + 1)}
    # Induction: query what stands so far back, key what stood so far before, in frequencies too slow to see distance.
    slow = [index for index in range(half) if frequencies[index] < 0.008]
    slow += [half + index for index in slow]
    copy = _orthogonal(width, width)
    matches = [pair for pair in MATCHES if pair[1] <= reach]
    for head in range(heads):
        rows = slice(head * size, (head + 1) * size)
        asked, stood = matches[head % len(matches)]
        match = torch.zeros(size, size)
        match[slow] = _orthogonal(size, size)[: len(slow)]
        second.q_proj.weight[rows] += 1.7 * match @ found[asked]
        second.k_proj.weight[rows] += 1.7 * match @ found[stood]
    second.v_proj.weight.add_(copy)
    second.o_proj.weight.add_(copy.T, alpha=2.0)


def copying_batch(rows: int, length: int, vocabulary: int, draw: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Random segments that return in pieces between random tokens: only looking back by content predicts them.

    Returns:
        ids and weights, both [rows, length]; the weight is 1 where a token continues a returning piece.
    """
    generator = torch.Generator().manual_seed(draw.getrandbits(60))
    ids = torch.randint(0, vocabulary, (rows, length), generator=generator)
    weights = torch.zeros(rows, length)
    for row in range(rows):
        size = draw.randint(4, length // 3)
        segment = ids[row, :size].clone()
        position = size
        while position < length - 3:
            position += draw.randint(0, 4)
            start = draw.randint(0, size - 3)
            piece = segment[start : start + draw.randint(3, size)][: max(0, length - position)]
            ids[row, position : position + len(piece)] = piece
            weights[row, position + 1 : position + len(piece)] = 1.0
            position += len(piece)
    return ids, weights


def recall_batch(rows: int, length: int, vocabulary: int, draw: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tables of the same random keys, then their values asked for side by side in another order and notation.

    Multi-query associative recall (Arora et al. 2023, "Zoology") as tool outputs pose it: what stands between a key
    and its value differs between the tables and the questions, so the student must find the key and step over it.

    Returns:
        ids and weights, both [rows, length]; the weight is 1 on the values that are asked for.
    """
    ids = torch.zeros(rows, length, dtype=torch.long)
    weights = torch.zeros(rows, length)

    def some(low: int, high: int) -> list[int]:
        return [draw.randrange(vocabulary) for _ in range(draw.randint(low, high))]

    def gap() -> list[int]:
        return some(1, 2 if draw.random() < LONG_BETWEEN else 1)

    for row in range(rows):
        line: list[int] = []
        asked: list[int] = []
        while len(line) < length:
            keys = [some(1, 3) for _ in range(draw.randint(2, 6))]
            tables = [[some(1, 4) for _ in keys] for _ in range(draw.randint(1, 2))]
            between, after = gap(), some(1, 2)
            for table in tables:
                line += some(0, 6)
                for key, value in zip(keys, table, strict=True):
                    line += key + between + value + after
            between, versus, after = gap(), gap(), some(1, 1)
            for index in draw.sample(range(len(keys)), len(keys)):
                line += keys[index]
                for number, table in enumerate(tables):
                    line += versus if number else between
                    asked += range(len(line), len(line) + len(table[index]))
                    line += table[index]
                line += after
        ids[row] = torch.tensor(line[:length])
        weights[row, [position for position in asked if position < length]] = 1.0
    return ids, weights


def warm_up(
    model: LlamaForCausalLM, shape: TinyLlama, seed: int, progress: Callable[[int, int, float], None] | None = None
) -> float:
    """Trains all weights on copying, then on recall mixed with copying; returns the mean loss of the last ten."""
    draw = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=shape.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    losses: list[float] = []
    model.train()
    steps = shape.copy_steps + shape.recall_steps
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = shape.learning_rate * min(1.0, (step + 1) / 20, (steps - step) / (0.3 * steps))
        recall = step >= shape.copy_steps and draw.random() < 0.7
        length = 128 if recall else 64
        make = recall_batch if recall else copying_batch
        ids, weights = make(shape.batch_tokens // length, length + 1, shape.vocab_size - len(SPECIAL_TOKENS), draw)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=ids[:, :-1]).logits
        token_loss = functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        target_weights = weights[:, 1:].flatten()
        loss = (token_loss * target_weights).sum() / target_weights.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if progress is not None:
            progress(step + 1, steps, losses[-1])
    model.eval()
    return sum(losses[-10:]) / max(1, len(losses[-10:]))


def make_tiny_base(
    shape: TinyLlama,
    texts: list[str],
    cache: Path,
    seed: int = 0,
    progress: Callable[[int, int, float], None] | None = None,
) -> Path:
    """The folder of the tiny base, made if the cache does not hold it.

    Args:
        texts: what the tokenizer is trained on; training split only.
        cache: parent folder; the base lies in a folder named by the hash of everything that shapes it.
        progress: called with (step, steps, loss) during the warm-up.

    Returns:
        A Hugging Face folder: config, safetensors, tokenizer with our chat template.
    """
    folder = cache / f"tiny-llama-{content_hash(RECIPE, shape, seed, template_text(), texts)}"
    if (folder / "config.json").exists():
        return folder
    tokenizer = train_tokenizer(texts, shape.vocab_size)
    model = new_model(shape, tokenizer, seed)
    warm_up(model, shape, seed, progress)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tiny-llama-", dir=cache) as scratch:
        partial = Path(scratch) / folder.name
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        with contextlib.suppress(OSError):  # somebody else has just made the same one
            partial.rename(folder)
    return folder
