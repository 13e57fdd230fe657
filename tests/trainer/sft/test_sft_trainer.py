"""SFT: only what the teacher wrote is learned, a stopped run goes on as if it had not been, bad input is refused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from claude_capture.claude_trace_schema import Teacher
from tests.trainer.student.tiny_bases import tiny_base
from trainer.config import Config, PpoConfig, SftConfig, StudentConfig
from trainer.errors import TrainerError
from trainer.records import BCSample
from trainer.report.road_report import sft_page
from trainer.run_folder import RunFolder
from trainer.sft.sft_trainer import encode_samples, train_sft, whole_checkpoint
from trainer.sft.student_samples import FILE, read_samples
from trainer.student.base_model import load_adapted, load_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_base(tmp_path_factory.mktemp("bases"))


def sample(number: int, **changes: Any) -> BCSample:
    fields: dict[str, Any] = {
        "trace_id": f"t{number}",
        "prompt": "p",
        "response": "r",
        "workflow_type": "search",
        "exploration_depth": "minimal",
        "messages": [
            {"role": "system", "content": "You are an agent."},
            {"role": "user", "content": f"Where is constant {number}?"},
            {"role": "assistant", "content": f"I search for {number}."},
        ],
        "weights": [1.0],
        "split": "train",
        "family": f"f{number}",
        "teacher": Teacher(),
        "basis": "own work",
    }
    return BCSample(**fields | changes)


SAMPLES = [sample(number) for number in range(12)]


def config(**sft: Any) -> Config:
    values = {
        "lora_r": 4,
        "learning_rate": 5e-3,
        "batch_size": 2,
        "max_steps": 8,
        "train_embeddings": True,
        "save_steps": 4,
    }
    return Config(student=StudentConfig(), sft=SftConfig(**values | sft))


def weights_of(adapter: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(adapter / "adapter_model.safetensors"))


def test_loss_falls_and_the_adapter_can_be_loaded(base: str, tmp_path: Path) -> None:
    settings = config(max_steps=30)
    run = RunFolder(tmp_path, "sft", settings)
    result = train_sft(SAMPLES, base, settings, run)
    assert result.loss_last < 0.8 * result.loss_first
    assert result.steps == 30
    assert run.result is not None
    assert run.result["loss_first"] == result.loss_first
    assert [row["step"] for row in run.metrics()] == [1, 10, 20, 30]
    model = load_adapted(base, settings.student, result.adapter)
    assert type(model).__name__ == "LlamaForCausalLM", "merged for generation"


def test_stopped_run_goes_on_exactly_where_it_was(base: str, tmp_path: Path) -> None:
    settings = config()
    whole = train_sft(SAMPLES, base, settings, RunFolder(tmp_path, "whole", settings))

    stopped = RunFolder(tmp_path, "stopped", settings)

    def kill_at_the_first_step(step: int, steps: int, loss: float) -> None:
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainerError, match="stopped by SIGTERM at step 2; run the same command to go on"):
        train_sft(SAMPLES, base, settings, stopped, kill_at_the_first_step)
    assert stopped.result is None
    state = stopped.path / "checkpoints" / "checkpoint-2" / "trainer_state.json"
    kept = json.loads(state.read_text())
    noted = kept["stateful_callbacks"]["RunLog"]["attributes"]
    assert 0 < noted["seconds"] < 60
    noted["seconds"] += 1000
    state.write_text(json.dumps(kept))
    resumed = train_sft(SAMPLES, base, settings, stopped)
    assert resumed.steps == whole.steps == 8
    assert stopped.result["seconds"] == resumed.seconds > 1000 > whole.seconds, "the seconds of every leg"
    first, second = weights_of(whole.adapter), weights_of(resumed.adapter)
    assert first.keys() == second.keys()
    for name, weight in first.items():
        assert torch.equal(weight, second[name]), name


def test_looks_keep_to_the_window_and_a_page_can_be_made_of_each(base: str, tmp_path: Path) -> None:
    """The first prompt is longer than the window: nothing is written there, and why is said."""
    tokenizer = load_tokenizer(base)
    long = sample(0, messages=[{"role": "user", "content": "word " * 200}, *SAMPLES[0].messages[2:]], prompt="long")
    settings = config(max_steps=4, sample_steps=2)
    settings = settings.model_copy(update={"ppo": PpoConfig(window=100, max_new_tokens=8)})
    run, shown = RunFolder(tmp_path, "sft", settings), []
    looked_at = [long, SAMPLES[1]]
    train_sft(
        SAMPLES, base, settings, run, looked_at=looked_at, show=lambda: shown.append(read_samples(run.path / FILE))
    )
    assert [len(lines) for lines in shown] == [2, 4]
    assert [(line["step"], line["prompt"]) for line in shown[-1]] == [(2, "long"), (2, "p"), (4, "long"), (4, "p")]
    for line in shown[-1]:
        cut = line["prompt"] == "long"
        assert ((line["stop"] == "window"), (line["student"] == "")) == (cut, cut)
        assert len(tokenizer.encode(line["student"])) <= 8
    page = sft_page(run.metrics(), {}, 12, "tiny", shown[-1]).html()
    assert page.count("(nothing: the prompt does not fit the window)") == 2
    assert '<dl class="tiles">' not in page, "no figures before the end"


def test_masked_turns_teach_nothing(base: str, tmp_path: Path) -> None:
    """Two sets that differ only in a turn of weight 0 give the same adapter."""
    texts = ("wrong way", "other path")
    adapters = []
    for text in texts:
        samples = [
            sample(
                number,
                messages=[
                    *SAMPLES[number].messages,
                    {"role": "user", "content": "again"},
                    {"role": "assistant", "content": text},
                ],
                weights=[1.0, 0.0],
            )
            for number in range(4)
        ]
        settings = config(max_steps=3)
        adapters.append(train_sft(samples, base, settings, RunFolder(tmp_path, text, settings)).adapter)
    first, second = (weights_of(adapter) for adapter in adapters)
    for name, weight in first.items():
        if "embed_tokens" not in name:  # the context is read, so its own embeddings may differ
            assert torch.allclose(weight, second[name], atol=1e-6), name


def test_bad_samples_are_refused(base: str, tmp_path: Path) -> None:
    settings = config()
    run = RunFolder(tmp_path, "run", settings)
    with pytest.raises(TrainerError, match="no training samples"):
        train_sft([], base, settings, run)
    with pytest.raises(TrainerError, match="not of the training split, the first is t3"):
        train_sft([sample(3, split="test")], base, settings, run)
    tokenizer = load_tokenizer(base)
    with pytest.raises(TrainerError, match=r"t1 has \d+ tokens, over max_tokens = 8"):
        encode_samples([sample(1)], tokenizer, max_tokens=8)
    with pytest.raises(TrainerError, match="no token under loss"):
        encode_samples([sample(1, weights=[0.0])], tokenizer, max_tokens=500)
    assert run.result is None


def test_several_gpus_for_one_process_are_one_line(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(TrainerError, match="on one GPU, and 4 are visible: set CUDA_VISIBLE_DEVICES=0"):
        train_sft(SAMPLES, base, config(), RunFolder(tmp_path, "run", config()))


def test_checkpoint_that_a_kill_cut_off_is_left_for_the_one_before(tmp_path: Path) -> None:
    assert whole_checkpoint(tmp_path / "none") is None
    for step, state in ((2, "{}"), (4, "{}"), (10, '{"global_st'), (12, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"x")
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-4"]
