"""tokenizer.json ↔ the vocabulary fields of a GGUF.

llama.cpp has no regular expression in its files: it knows tokenizers by name. `llama-bpe` means the split below,
byte-level BPE, and whole words looked up before any merge (`ignore_merges`). A tokenizer that differs in one of
these would be cut differently in service than in training, so it is refused here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError
from trainer.export.json_file import read_json

PRE_TOKENIZER = "llama-bpe"
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
CONTROL_IDS = {
    "bos": "<|begin_of_text|>",
    "eos": "<|eot_id|>",
    "eot": "<|eot_id|>",
    "eom": "<|eom_id|>",
    "padding": "<|finetune_right_pad_id|>",
}
"""GGUF role → token. The end of a sequence is the end of a turn: with `<|end_of_text|>` generation never stops."""
REQUIRED_CONTROLS = ("bos", "eos", "eot", "eom")


class TokenType(IntEnum):
    """Types of tokens in a GGUF."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id, their types, the merges in order of rank, and the ids that have a role."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    """Two tokens parted by a space; inside a token a space is written Ġ."""
    roles: dict[str, int]


def _splits(pre_tokenizer: dict[str, Any]) -> list[dict[str, Any]]:
    parts = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    return [part for part in parts if isinstance(part, dict)]


def _check_pre_tokenizer(tokenizer: dict[str, Any], file: Path) -> None:
    parts = _splits(tokenizer.get("pre_tokenizer") or {})
    patterns = [part["pattern"].get("Regex") for part in parts if part.get("type") == "Split"]
    byte_level = [part for part in parts if part.get("type") == "ByteLevel"]
    plain = len(byte_level) == 1 and not byte_level[0].get("add_prefix_space") and not byte_level[0].get("use_regex")
    if patterns != [LLAMA3_SPLIT] or not plain or tokenizer.get("normalizer"):
        raise TrainerError(
            f"{file}: text is not split as in Llama 3 (found {patterns}); llama.cpp would read other tokens than the "
            "trainer: use a base with Llama 3's tokenizer"
        )


def read_vocabulary(folder: Path, vocab_size: int) -> Vocabulary:
    """The vocabulary of a Hugging Face folder.

    Args:
        vocab_size: rows of the embedding; ids without a token become unused padding.

    Raises:
        TrainerError: not a Llama-3 tokenizer, more tokens than rows, or a control token is missing.
    """
    file = folder / "tokenizer.json"
    tokenizer = read_json(file)
    try:
        return _vocabulary(tokenizer, file, vocab_size)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise TrainerError(
            f"{file}: not a tokenizer as Hugging Face saves it ({type(error).__name__}: {error}); "
            "download the base again"
        ) from None


def read_tokenizer(path: Path) -> Any:
    """Hugging Face's own tokenizer of a folder or a tokenizer.json.

    Raises:
        TrainerError: it cannot be read.
    """
    from tokenizers import Tokenizer

    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the only class that `tokenizers` raises
        reason = str(error).split("\n")[0]
        raise TrainerError(f"{file}: cannot be read as a tokenizer ({reason}); a tokenizer.json is expected") from None


def _vocabulary(tokenizer: dict[str, Any], file: Path, vocab_size: int) -> Vocabulary:
    model = tokenizer["model"]
    if model.get("type", "BPE") != "BPE" or "vocab" not in model or not model.get("ignore_merges"):
        raise TrainerError(
            f"{file}: model {model.get('type')!r} with ignore_merges={model.get('ignore_merges')}; "
            "Llama 3's byte-level BPE with ignore_merges=true is expected"
        )
    _check_pre_tokenizer(tokenizer, file)
    token_of = {index: token for token, index in model["vocab"].items()}
    type_of = dict.fromkeys(token_of, int(TokenType.NORMAL))
    for added in tokenizer.get("added_tokens", []):
        token_of[added["id"]] = added["content"]
        type_of[added["id"]] = int(TokenType.CONTROL if added.get("special") else TokenType.USER_DEFINED)
    if max(token_of) >= vocab_size:
        raise TrainerError(
            f"{file.parent}: the tokenizer has id {max(token_of)}, the embedding only {vocab_size} rows; tokens were "
            "added without resizing, and none may be added at all: use the base's own tokenizer"
        )
    id_of = {token: index for index, token in token_of.items() if type_of[index] == TokenType.CONTROL}
    roles = {role: id_of[token] for role, token in CONTROL_IDS.items() if token in id_of}
    missing = [CONTROL_IDS[role] for role in REQUIRED_CONTROLS if role not in roles]
    if missing:
        raise TrainerError(f"{file}: control token {missing[0]} is missing; use a base with Llama 3.1's control tokens")
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return Vocabulary(
        tokens=[token_of.get(index, f"[PAD{index}]") for index in range(vocab_size)],
        types=[type_of.get(index, int(TokenType.UNUSED)) for index in range(vocab_size)],
        merges=[" ".join(part.replace(" ", "Ġ") for part in pair) for pair in pairs],
        roles=roles,
    )


def independent_tokenizer(vocabulary: Vocabulary) -> Any:
    """The vocabulary in Hugging Face's `tokenizers`: a second implementation to compare llama.cpp's with."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    pairs = (merge.partition(" ") for merge in vocabulary.merges)
    merges = [(left, right) for left, _, right in pairs]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, ignore_merges=True))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True):
        if kind in (TokenType.CONTROL, TokenType.USER_DEFINED):
            special = kind == TokenType.CONTROL
            tokenizer.add_special_tokens([AddedToken(token, special=special, normalized=False)])
    return tokenizer
