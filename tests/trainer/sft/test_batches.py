"""Packing loses no token and lets no sample see another; cut batches teach what whole ones do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trl.trainer.utils import add_fused_lm_head

from tests.trainer.sft.small_sft import curve, samples, settings, train
from trainer.errors import TrainerError
from trainer.run_folder import RunFolder
from trainer.sft.batch_plan import FILE as PLAN
from trainer.sft.batch_plan import BatchPlan
from trainer.sft.batches import (
    IGNORED,
    collate_packed,
    collate_padded,
    cut,
    filled,
    nothing,
    pack,
    packed_rows,
    samples_in,
)
from trainer.sft.sft_trainer import encode_samples
from trainer.sft.weighted_trainer import EpochSampler, WeightedSftTrainer, token_losses
from trainer.student.base_model import load_model, load_tokenizer

LENGTHS = st.lists(st.integers(1, 100), max_size=60)


@given(LENGTHS)
def test_every_sample_is_packed_once_and_no_row_is_too_long(lengths: list[int]) -> None:
    for keep_order in (False, True):
        rows = pack(lengths, 100, keep_order)
        members = [index for row in rows for index in row]
        assert sorted(members) == list(range(len(lengths)))
        assert all(0 < sum(lengths[index] for index in row) <= 100 for row in rows)
        if keep_order:
            assert members == sorted(members)
    best = -(-sum(lengths) // 100)
    assert len(pack(lengths, 100)) <= 11 / 9 * max(best, sum(length > 50 for length in lengths)) + 1 or not lengths


@pytest.fixture(scope="module")
def rows(base: str) -> list[dict[str, object]]:
    return encode_samples(samples(6), load_tokenizer(base), 4096, context_weight=0.3)


@pytest.mark.parametrize("packed", [True, False])
def test_a_cut_batch_holds_the_same_targets(rows: list[dict[str, object]], packed: bool) -> None:
    batch = collate_packed(packed_rows(rows, 4096)) if packed else collate_padded(0)(rows)
    for parts in (1, 2, 4, 6, 50):
        pieces = cut(batch, parts)
        assert len(pieces) == min(parts, 6)
        assert torch.equal(torch.cat([piece["numbers"] for piece in pieces]), batch["numbers"])
        for name in ("input_ids", "labels", "loss_weights", "written"):
            flat = torch.cat([piece[name].flatten() for piece in pieces])
            assert torch.equal(flat, batch[name].flatten()), name
        if packed:
            assert all(piece["position_ids"][0, 0] == 0 for piece in pieces)
            assert all(piece["labels"][0, 0] == IGNORED for piece in pieces)


def test_packed_samples_do_not_see_each_other(base: str, rows: list[dict[str, object]]) -> None:
    """Loss and gradients of a packed row are those of its samples one by one; another first sample changes neither."""
    model = load_model(base, settings().student)
    packed = collate_packed(packed_rows(rows, 4096))

    def loss_of(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        ids = {name: batch[name] for name in ("input_ids", "position_ids")}
        logits = model(**ids, use_cache=False).logits[0, :-1]
        return torch.nn.functional.cross_entropy(logits, batch["labels"][0, 1:], reduction="sum", ignore_index=IGNORED)

    def gradients() -> list[torch.Tensor]:
        found = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        model.zero_grad()
        return found

    together = loss_of(packed)
    together.backward()
    expected = gradients()
    alone = [loss_of(collate_packed([row])) for row in rows]
    torch.stack(alone).sum().backward()
    assert together.item() == pytest.approx(sum(loss.item() for loss in alone), rel=1e-5)
    for one, other in zip(expected, gradients(), strict=True):
        assert torch.allclose(one, other, atol=1e-4 * other.abs().max().item() + 1e-6)

    first_ends = int((packed["position_ids"][0] == 0).nonzero()[1])
    other_first = packed["input_ids"].clone()
    other_first[0, 5:first_ends] = 7
    with torch.no_grad():
        before, after = (
            model(input_ids=ids, position_ids=packed["position_ids"], use_cache=False).logits[0, first_ends:]
            for ids in (packed["input_ids"], other_first)
        )
    assert torch.equal(before, after)


@pytest.mark.parametrize("packed", [True, False])
def test_the_head_of_a_gpu_gives_the_losses_and_gradients_of_plain_logits(
    base: str, rows: list[dict[str, object]], packed: bool
) -> None:
    """TRL's fused head runs on a CPU too; where nothing is to be learned its loss is 0 and can be differentiated."""
    model = load_model(base, settings().student)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    batch = collate_packed(packed_rows(rows, 4096)) if packed else collate_padded(0)(rows)
    for one in (batch, nothing(batch)):
        found = []
        for fused in (True, False):
            losses, _ = token_losses(model, one, fused=fused)
            assert losses.shape == one["labels"][:, 1:].shape
            (losses * one["loss_weights"][:, 1:]).sum().backward()
            found.append((losses.detach(), [parameter.grad.clone() for parameter in model.parameters()]))
            model.zero_grad()
        (ours, own), (theirs, other) = found
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        assert (ours[one["labels"][:, 1:] == IGNORED] == 0).all()
        for left, right in zip(own, other, strict=True):
            assert torch.allclose(left, right, atol=1e-4 * right.abs().max().item() + 1e-7)


def test_packed_padded_and_accumulated_training_are_the_same(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six samples an update, in one packed row, in one padded batch, one at a time, and in remembered halves."""
    common = {"count": 6, "max_steps": 4, "order": "curriculum", "max_tokens": 1024}
    ways = {
        "packed": {"packing": True, "batch_size": 1},
        "padded": {"batch_size": 6},
        "accumulated": {"batch_size": 1, "gradient_accumulation": 6},
        "halves": {"packing": True, "batch_size": 1},
    }
    (tmp_path / "halves").mkdir()
    (tmp_path / "halves" / PLAN).write_text('{"parts": 4, "step": 3}')
    curves, parts = {}, []
    whole = WeightedSftTrainer._cut
    monkeypatch.setattr(
        WeightedSftTrainer, "_cut", lambda self, batch: parts.append(pieces := whole(self, batch)) or pieces
    )
    for name, values in ways.items():
        parts.clear()
        train(tmp_path, name, base, **common | values)
        curves[name] = [row[1] for row in curve(RunFolder(tmp_path, name, settings()))]
        assert {len(pieces) for pieces in parts} == {4 if name == "halves" else 1}, name
    for name, losses in curves.items():
        assert losses == pytest.approx(curves["padded"], rel=1e-4), name
    assert curves["padded"][-1] < 0.98 * curves["padded"][0], "it learns"


@pytest.mark.parametrize("packed", [False, True])
def test_rows_that_fill_up_the_last_batch_teach_nothing_and_are_no_samples(
    rows: list[dict[str, object]], packed: bool
) -> None:
    collate = collate_packed if packed else collate_padded(7)
    padded = filled(rows, 4, pad=7)
    assert (len(rows), len(padded), filled(padded, 4, pad=7)) == (6, 8, padded)
    batch, alone = collate(padded[4:]), collate(rows[4:])
    assert (batch["labels"] != IGNORED).sum() == (alone["labels"] != IGNORED).sum() > 0
    assert batch["written"].sum() == alone["written"].sum()
    assert samples_in(batch) == samples_in(alone) == 2
    nothing = collate(padded[6:])
    assert (nothing["labels"] == IGNORED).all()
    assert (samples_in(nothing), len(cut(nothing, 2))) == (0, 1)


def test_batches_are_not_cut_where_each_part_would_be_an_update(rows: list[dict[str, object]]) -> None:
    trainer = SimpleNamespace(_plan=BatchPlan(parts=2), is_deepspeed_enabled=True)
    with pytest.raises(TrainerError, match=r"2 parts under DeepSpeed: lower sft\.batch_size"):
        WeightedSftTrainer._cut(trainer, collate_padded(0)(rows))  # type: ignore[arg-type]


def test_order_of_an_epoch_keeps_what_fills_up_at_its_end() -> None:
    lengths = [5, 9, 3, 7, 4]
    order = list(EpochSampler(lengths, 4, seed=1, fillers=3))
    assert order[-3:] == [5, 6, 7]
    assert order[:5] == list(EpochSampler(lengths, 4, seed=1))
