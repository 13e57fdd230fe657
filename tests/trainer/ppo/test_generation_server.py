"""PPO with a vLLM server: adapters that are exchanged while it runs, tokens in and out, what its errors come to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from tests.trainer.ppo.micro import LetterReward, Silence, micro_llama
from tests.trainer.ppo.vllm_contract_server import ContractServer, listening
from trainer.config import Config
from trainer.errors import TrainerError
from trainer.ppo.checkpoints import latest_checkpoint
from trainer.ppo.generation_server import GenerationServer
from trainer.ppo.importance import CAP, GenerationServerError, truncated_ratios
from trainer.ppo.learner import Learner
from trainer.ppo.ppo_trainer import train_ppo
from trainer.ppo.rollout_buffer import collect, minibatches
from trainer.ppo.value_head import frozen_reference
from trainer.records import Message
from trainer.run_folder import RunFolder
from trainer.student.chat_format import EOT, ParsedTurn
from trainer.student.episodes import Case, run_episodes


class Echo(Silence):
    """Answers every turn, whatever it says, so that episodes have several."""

    def step(self, turn: ParsedTurn) -> list[Message] | None:
        return [{"role": "tool", "content": "go on", "tool_call_id": "call_0"}]


def bare(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    model = LlamaForCausalLM(micro_llama(tokenizer))
    model.lm_head = torch.nn.Linear(64, len(tokenizer))
    torch.nn.init.normal_(model.lm_head.weight, std=0.02)
    with torch.no_grad():  # so that turns come to an end
        model.lm_head.bias.zero_()[tokenizer.convert_tokens_to_ids(EOT)] = 0.4
    return model.eval()


@pytest.fixture
def student(tokenizer: Any) -> Any:
    """The base with an adapter that does something, and no module of its own: what vLLM can serve."""
    model = get_peft_model(bare(tokenizer), LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05)
    return model.eval()


@pytest.fixture
def vllm(tokenizer: Any) -> ContractServer:
    return ContractServer(bare(tokenizer))


@pytest.fixture
def url(vllm: ContractServer) -> Iterator[str]:
    with listening(vllm) as address:
        yield address


@pytest.fixture
def client(url: str, tmp_path: Path) -> GenerationServer:
    return GenerationServer(url, tmp_path / "ppo-v1-abc", seconds=120, pause=0.001)


def train(student: Any, tokenizer: Any, cases: list[Case], config: Config, runs: Path) -> RunFolder:
    run = RunFolder(runs, "ppo-v1-x", config)
    train_ppo(student, tokenizer, cases, cases[:2], LetterReward(), config, run)
    return run


def test_server_writes_what_the_model_writes(client: GenerationServer, student: Any, tokenizer: Any) -> None:
    client.take_over(student)
    limits: dict[str, Any] = {"max_turns": 3, "max_new_tokens": 6}
    prompts = [f"please fix {'the ' * i}typo" for i in range(4)]
    here = run_episodes(student, tokenizer, [Echo(p) for p in prompts], **limits)
    there = client.run_episodes(student, tokenizer, [Echo(p) for p in prompts], **limits)
    for one, other in zip(here, there, strict=True):
        assert (one.ids, one.written, one.turn_ends, one.messages, one.stop) == (
            other.ids,
            other.written,
            other.turn_ends,
            other.messages,
            other.stop,
        )
        assert len(other.log_probs) == sum(other.written)
        assert one.log_probs == []
    assert max(len(episode.turn_ends) for episode in there) > 1


def test_log_probs_are_those_of_the_distribution_that_was_drawn_from(
    client: GenerationServer, student: Any, tokenizer: Any
) -> None:
    client.take_over(student)
    (episode,) = client.run_episodes(
        student, tokenizer, [Echo("please fix")], max_turns=2, max_new_tokens=8, temperature=0.7, seed=5
    )
    with torch.inference_mode():
        logits = student(input_ids=torch.tensor([episode.ids])).logits[0].float() / 0.7
    places = [index for index, own in enumerate(episode.written) if own]
    own = [float(logits[place - 1].log_softmax(-1)[episode.ids[place]]) for place in places]
    assert episode.log_probs == pytest.approx(own, abs=1e-4)


def test_window_of_the_server_holds(
    vllm: ContractServer, client: GenerationServer, student: Any, tokenizer: Any
) -> None:
    vllm.window = 60
    client.take_over(student)
    (episode,) = client.run_episodes(student, tokenizer, [Echo("please fix")], max_turns=50, max_new_tokens=99)
    assert episode.stop == "window"
    assert len(episode.ids) <= 60


def test_another_student_has_another_name_and_takes_the_place_of_the_one_before(
    vllm: ContractServer, client: GenerationServer, student: Any, tmp_path: Path
) -> None:
    vllm.loaded |= {"ppo-v1-abc-killed": "/gone", "somebody-else": "/kept"}
    client.take_over(student)
    client.take_over(student)  # nothing has changed
    (first,) = [name for name in vllm.loaded if name.startswith("ppo-v1-abc-")]
    with torch.no_grad():
        next(p for n, p in student.named_parameters() if "lora_B" in n).add_(1.0)
    client.take_over(student)
    (second,) = [name for name in vllm.loaded if name.startswith("ppo-v1-abc-")]
    assert first != second
    assert [body["lora_name"] for _, path, body in vllm.asked if path == "/v1/load_lora_adapter"] == [first, second]
    assert [place.name for place in (tmp_path / "ppo-v1-abc" / "served").iterdir()] == [second]
    client.close()
    assert list(vllm.loaded) == ["somebody-else"]
    assert not (tmp_path / "ppo-v1-abc" / "served").exists()


@pytest.mark.parametrize("failing", [[503, 503], [0], [429, 0, 502]])
def test_busy_server_is_asked_again(
    vllm: ContractServer, client: GenerationServer, student: Any, tokenizer: Any, failing: list[int]
) -> None:
    client.take_over(student)
    vllm.failing = list(failing)
    (episode,) = client.run_episodes(student, tokenizer, [Silence("please fix")], max_turns=1, max_new_tokens=4)
    assert vllm.failing == []
    assert episode.log_probs


def test_answers_that_were_lost_on_the_way_do_no_harm(
    vllm: ContractServer, client: GenerationServer, student: Any
) -> None:
    vllm.loaded["ppo-v1-abc-killed"] = "/gone"
    vllm.lost = [("POST", "/v1/unload_lora_adapter"), ("POST", "/v1/load_lora_adapter")]
    client.take_over(student)
    assert vllm.lost == []
    assert len(vllm.loaded) == 1
    assert "ppo-v1-abc-killed" not in vllm.loaded


def test_server_that_never_answers_is_given_up(url: str, vllm: ContractServer, student: Any, tmp_path: Path) -> None:
    vllm.failing = [-1] * 5
    with pytest.raises(GenerationServerError, match=r"cannot be reached \(no answer within 0 s; 5 tries\)"):
        GenerationServer(url, tmp_path / "run", seconds=0.05, pause=0.001).take_over(student)


def test_no_server_is_one_line(student: Any, tmp_path: Path) -> None:
    with pytest.raises(
        GenerationServerError, match=r"^http://127.0.0.1:9: the generation server cannot be reached \(.*"
    ):
        GenerationServer("http://127.0.0.1:9", tmp_path / "run", pause=0.001).take_over(student)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("max_lora_rank", 4), r"refuses the adapter \(HTTP 500\): LoRA rank 8 is greater than max_lora_rank 4"),
        (("runtime_lora", False), "start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
        (("key", "secret"), "it wants a key; set VLLM_API_KEY"),
    ],
)
def test_what_the_server_refuses_is_explained(
    vllm: ContractServer, client: GenerationServer, student: Any, change: tuple[str, Any], said: str
) -> None:
    setattr(vllm, *change)
    with pytest.raises(GenerationServerError, match=said):
        client.take_over(student)


def test_key_is_sent(
    vllm: ContractServer, client: GenerationServer, student: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    vllm.key = "secret"
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    client.take_over(student)
    assert len(vllm.loaded) == 1


def test_adapter_with_whole_modules_is_refused_before_anything_is_asked(
    vllm: ContractServer, client: GenerationServer, micro_model: Callable[[], Any]
) -> None:
    with pytest.raises(GenerationServerError, match="vLLM serves LoRA alone, and this adapter holds all of lm_head"):
        client.take_over(micro_model())
    assert vllm.asked == []


def test_server_without_token_ids_is_refused(
    vllm: ContractServer, client: GenerationServer, student: Any, tokenizer: Any
) -> None:
    vllm.knows_token_ids = False
    client.take_over(student)
    with pytest.raises(GenerationServerError, match="update vLLM"):
        client.run_episodes(student, tokenizer, [Silence("x")], max_turns=1, max_new_tokens=4)


def test_ratios_are_cut_at_the_cap_and_reported() -> None:
    own = np.log([0.5, 0.2, 0.9, 0.3])
    sampled = np.log([0.5, 0.25, 0.3, 0.3])
    weights, report = truncated_ratios(own, sampled)
    assert weights == pytest.approx([1.0, 0.8, CAP, 1.0])
    ratios = np.array([1.0, 0.8, 3.0, 1.0])
    assert report == pytest.approx(
        {
            "kl": float((ratios - 1 - np.log(ratios)).mean()),
            "difference": float(np.abs(np.log(ratios)).mean()),
            "ratio": 1.45,
            "truncated": 0.25,
        }
    )


def test_ratios_weigh_the_drawn_back_to_the_trainers_policy() -> None:
    """E_μ[min(π/μ, CAP)·f] is E_π[f] where nothing is cut off."""
    generator = np.random.default_rng(0)
    policy, drawn = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
    tokens = generator.choice(3, 200_000, p=drawn)
    weights, _ = truncated_ratios(np.log(policy)[tokens], np.log(drawn)[tokens])
    value = np.array([1.0, -2.0, 5.0])
    assert float((weights * value[tokens]).mean()) == pytest.approx(float(policy @ value), abs=0.03)


def test_other_weights_on_the_server_end_the_run() -> None:
    with pytest.raises(GenerationServerError, match=r"1\.00 nats per token from the student's"):
        truncated_ratios(np.full(4, -2.0), np.full(4, -1.0))


def test_ppo_learns_from_a_server_and_reports_the_mismatch(
    vllm: ContractServer,
    url: str,
    student: Any,
    tokenizer: Any,
    cases: list[Case],
    ppo_config: Callable[..., Config],
    runs: Path,
) -> None:
    vllm.noise = 0.05
    run = train(student, tokenizer, cases, ppo_config(updates=8, generation_server=url), runs)
    rows = [row for row in run.metrics() if row["update"]]
    assert sum(row["reward"] for row in rows[-3:]) > sum(row["reward"] for row in rows[:3])
    for row in rows:
        assert 0.015 < row["server"]["difference"] < 0.04
        assert row["server"]["ratio"] == pytest.approx(1.0, abs=0.02)
        assert row["server"]["truncated"] == 0.0
        assert row["server"]["kl"] == pytest.approx(0.05**2 / 6, rel=0.4)
    assert vllm.loaded == {}


def test_each_token_is_weighed_by_its_ratio(
    vllm: ContractServer,
    client: GenerationServer,
    student: Any,
    tokenizer: Any,
    cases: list[Case],
    ppo_config: Callable[..., Config],
) -> None:
    vllm.noise = 0.9
    ppo = ppo_config().ppo
    client.take_over(student)
    rollouts = collect(
        student, tokenizer, cases, LetterReward(), ppo, temperature=1.0, seed=3, play=client.run_episodes
    ).rollouts
    with frozen_reference(student):
        learner = Learner(student, ppo)
        batches = [batch for group in minibatches(rollouts, 4, 1, learner.device) for batch in group.batches]
        weighed = learner.look_back(rollouts, batches)
        sampled = torch.tensor([value for rollout in rollouts for value in rollout.episode.log_probs])
        for rollout in rollouts:
            rollout.episode.log_probs.clear()
        plain = learner.look_back(rollouts, batches)
    ratios = (plain.log_probs - sampled).exp().clamp(max=CAP)
    assert float(ratios.max()) == CAP
    assert torch.allclose(weighed.advantages, plain.advantages * ratios, atol=1e-5)
    assert weighed.server is not None
    assert weighed.server["truncated"] == pytest.approx(float((ratios == CAP).float().mean()))
    assert plain.server is None


def test_run_saves_when_the_server_goes_away_and_goes_on_with_another(
    vllm: ContractServer,
    url: str,
    student: Any,
    tokenizer: Any,
    cases: list[Case],
    ppo_config: Callable[..., Config],
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import copy

    monkeypatch.setattr("trainer.ppo.generation_server.TRIES", 2)
    monkeypatch.setattr("time.sleep", lambda _: None)
    fresh = copy.deepcopy(student)
    config = ppo_config(updates=3, checkpoint_every=50, generation_server=url)
    plain = vllm.answer

    def dying(method: str, path: str, body: dict[str, Any], key: str | None) -> Any:
        if (runs / "ppo-v1-x" / "metrics.jsonl").exists():
            done = [json.loads(line) for line in (runs / "ppo-v1-x" / "metrics.jsonl").read_text().splitlines()]
            if done[-1]["update"] == 2:
                vllm.failing = [0] * 10_000
        return plain(method, path, body, key)

    monkeypatch.setattr(vllm, "answer", dying)
    with pytest.raises(TrainerError, match="cannot be reached"):
        train(student, tokenizer, cases, config, runs)
    saved = latest_checkpoint(runs / "ppo-v1-x" / "checkpoints")
    assert saved is not None
    assert saved.update == 2
    monkeypatch.undo()
    vllm.failing = []
    assert [row["update"] for row in train(fresh, tokenizer, cases, config, runs).metrics()] == [0, 1, 2, 3]
