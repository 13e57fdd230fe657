"""The base's weights are found in the hub's cache whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from trainer.errors import TrainerError
from trainer.student.base_checksum import base_checksum
from trainer.student.base_folder import base_folder


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of `someone/base` after the tokenizer alone was read from it; the hub cannot be reached."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    model, commit = tmp_path / "models--someone--base", "0" * 40
    folder = model / "snapshots" / commit
    folder.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    return folder


def test_cache_with_the_tokenizer_alone_is_no_base(cached: Path) -> None:
    with pytest.raises(TrainerError, match=r"cache lacks model\*\.safetensors; connect this machine"):
        base_checksum("someone/base")


def test_shards_of_an_interrupted_download_are_not_taken_for_the_whole(cached: Path) -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (cached / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", shards, strict=True))})
    )
    (cached / shards[0]).write_bytes(b"first")
    with pytest.raises(TrainerError, match=f"cache lacks {shards[1]}"):
        base_checksum("someone/base")
    (cached / shards[1]).write_bytes(b"second")
    assert base_folder("someone/base") == cached
    assert len(base_checksum("someone/base")) == 64
