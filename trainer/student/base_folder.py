"""Where a base's files lie: in a folder, or in the hub's cache, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from trainer.errors import TrainerError

LAYOUT = "config.json, tokenizer.json, tokenizer_config.json and model*.safetensors"
PATTERNS = (
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "README.md",
    "LICENSE*",
    "NOTICE",
)
"""What training and export read of a base; the last three say under which licence it may be passed on."""


def base_folder(base: Path | str) -> Path:
    """The folder of a base: itself, or what the hub's cache holds of it after a download.

    Raises:
        TrainerError: there is no such folder, or the cache does not hold it and it cannot be fetched.
    """
    if Path(base).is_dir():
        return Path(base)
    name = str(base)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise TrainerError(f"{name}: no such folder; a base is a folder with {LAYOUT}, or a hub id")
    try:
        cached = Path(snapshot_download(name, allow_patterns=list(PATTERNS), local_files_only=True))
        if not lacking_files(cached):  # it may hold the tokenizer alone, or some of the shards
            return cached
    except LocalEntryNotFoundError:
        pass
    try:
        fetched = Path(snapshot_download(name, allow_patterns=list(PATTERNS)))
    except Exception as error:  # the hub's client raises a dozen kinds; all mean the same here
        first = str(error).strip().split("\n")[0]
        raise TrainerError(f"{name}: cannot be fetched ({first}); give a local folder with {LAYOUT} as base") from None
    if lacking := lacking_files(fetched):  # the hub did not answer, and its cache was taken as it is
        raise TrainerError(
            f"{name}: the hub's cache lacks {', '.join(lacking)}; connect this machine, or give a local folder with "
            f"{LAYOUT} as base"
        )
    return fetched


def lacking_files(folder: Path) -> list[str]:
    """Which files of a base a folder lacks; shards are looked up in their index."""
    lacking = [name for name in ("config.json", "tokenizer.json") if not (folder / name).exists()]
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        return lacking + [name for name in shards if not (folder / name).exists()]
    return lacking + ([] if list(folder.glob("*.safetensors")) else ["model*.safetensors"])
