"""The embedded base: cached by everything that shapes it, and able to copy after its warm-up."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.student.tiny_bases import SHAPE, TEXTS
from trainer.config import StudentConfig
from trainer.errors import TrainerError
from trainer.student.base_model import load_model, load_tokenizer, resolve_base
from trainer.student.chat_format import EOT
from trainer.student.tiny_llama import (
    MATCHES,
    copying_batch,
    make_tiny_base,
    new_model,
    recall_batch,
    train_tokenizer,
    warm_up,
)

TOKENIZER = train_tokenizer(TEXTS, 512)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_survives_the_tokenizer(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert TOKENIZER.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text


def test_digits_stand_alone_and_a_word_is_the_same_tokens_anywhere() -> None:
    encode = TOKENIZER.encode
    assert len(encode("123", add_special_tokens=False)) == 3
    word = encode("Oakridge", add_special_tokens=False)
    for text in (" Oakridge", "='Oakridge'", '"Oakridge"'):
        ids = encode(text, add_special_tokens=False)
        assert any(ids[start : start + len(word)] == word for start in range(len(ids)))


def test_control_tokens_are_single_and_the_template_is_ours() -> None:
    assert TOKENIZER.encode(EOT, add_special_tokens=False) == [TOKENIZER.eos_token_id]
    assert len(TOKENIZER) == 512
    assert TOKENIZER.chat_template


def test_base_is_made_once_and_remade_when_its_shape_changes(tmp_path: Path) -> None:
    made: list[int] = []

    def make(copy_steps: int) -> Path:
        shape = SHAPE.model_copy(update={"copy_steps": copy_steps})
        return make_tiny_base(shape, TEXTS, tmp_path, progress=lambda step, steps, loss: made.append(step))

    first = make(1)
    assert make(1) == first
    assert made == [1]
    assert make(2) != first
    assert {path.name[0] for path in tmp_path.iterdir()} == {"t"}, "no partial folder is left"
    model = load_model(str(first), StudentConfig())
    assert model.config.vocab_size == 512
    assert load_tokenizer(str(first)).eos_token == EOT


def test_warm_up_teaches_copying() -> None:
    shape = SHAPE.model_copy(update={"copy_steps": 60, "layers": 2})
    model = new_model(shape, TOKENIZER, seed=0)
    ids, weights = copying_batch(16, 65, 500, random.Random(5))

    def loss() -> float:
        with torch.no_grad():
            logits = model(input_ids=ids[:, :-1]).logits
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        target = weights[:, 1:].flatten()
        return float((losses * target).sum() / target.sum())

    before = loss()
    warm_up(model, shape, seed=0)
    assert loss() < 0.35 * before


@pytest.mark.parametrize("head", range(len(MATCHES)))
def test_an_untrained_base_finds_the_value_behind_a_key_across_a_gap(head: int) -> None:
    """`… key [gap] value … key [gap]`: the head looks at the value from the last token."""
    asked, stood = MATCHES[head]
    model = new_model(SHAPE, TOKENIZER, seed=0).eval()
    model.set_attn_implementation("eager")
    key, value, rows, length = 20, 20 + stood, 64, 64
    ids = torch.randint(0, 500, (rows, length), generator=torch.Generator().manual_seed(1))
    ids[:, length - 1 - asked] = ids[:, key]
    with torch.no_grad():
        looks = model(input_ids=ids, output_attentions=True).attentions[1][:, head, -1]
    assert int((looks.argmax(-1) == value).sum()) > 0.25 * rows, "1 in 64 would be chance"


def test_recall_asks_only_for_values_that_stand_in_its_tables() -> None:
    ids, weights = recall_batch(8, 128, 400, random.Random(1))
    assert ids.shape == weights.shape == (8, 128)
    assert set(weights.unique().tolist()) == {0.0, 1.0}
    for row, asked in zip(ids.tolist(), weights.tolist(), strict=True):
        for position, weight in enumerate(asked):
            if weight:
                assert row[position] in row[:position], "what is asked for has been shown before"


def test_unknown_folder_names_the_wanted_layout(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"no such folder.*config\.json"):
        resolve_base(StudentConfig(base_model=str(tmp_path / "nothing")))
    with pytest.raises(TrainerError, match="no model there"):
        resolve_base(StudentConfig(base_model=str(tmp_path)))
    with pytest.raises(TrainerError, match="build the dataset first"):
        resolve_base(StudentConfig())
