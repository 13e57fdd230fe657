"""Where a base comes from and where its weights go: said in one line where it cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from trainer.config import StudentConfig
from trainer.errors import TrainerError
from trainer.student.base_folder import LAYOUT, base_folder
from trainer.student.base_model import load_model, load_tokenizer, placement, resolve_base


def test_a_hub_that_cannot_be_reached_names_the_files_that_a_folder_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for load in (load_tokenizer, lambda base: load_model(base, StudentConfig()), base_folder):
        with pytest.raises(TrainerError, match=r"^acme/llama: .*give .*a local folder with ") as error:
            load("acme/llama")
        assert LAYOUT in str(error.value)
        assert "\n" not in str(error.value)


def test_a_folder_that_is_no_base_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"no model there; a base folder holds config\.json, tokenizer\.json"):
        resolve_base(StudentConfig(base_model=str(tmp_path)))
    with pytest.raises(TrainerError, match=r"no such folder; base_model is 'tiny', a hub id or a folder"):
        resolve_base(StudentConfig(base_model=str(tmp_path / "none")))
    with pytest.raises(TrainerError, match="build the dataset first"):
        resolve_base(StudentConfig())


@pytest.mark.parametrize(
    ("launcher", "in_4bit", "expected"),
    [
        pytest.param({}, False, {"device_map": {"": 3}}, id="whole copies"),
        pytest.param({"ACCELERATE_USE_FSDP": "true"}, False, {}, id="split by FSDP"),
        pytest.param({"ACCELERATE_USE_DEEPSPEED": "true"}, False, {}, id="split by DeepSpeed"),
        pytest.param({"ACCELERATE_USE_FSDP": "true"}, True, {"device_map": {"": 3}}, id="NF4 is never split"),
    ],
)
def test_weights_that_will_be_split_begin_in_cpu_memory(
    launcher: dict[str, str], in_4bit: bool, expected: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ({"LOCAL_RANK": "3"} | launcher).items():
        monkeypatch.setenv(name, value)
    student = StudentConfig(load_in_4bit=in_4bit)
    assert placement(student) == {}, "no GPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert placement(student) == expected
