"""Episodes in lock step give what each would give alone, and record exactly what the model saw and wrote."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear

from tests.trainer.student.tiny_bases import tiny_base
from trainer.config import StudentConfig
from trainer.records import Message
from trainer.student.base_model import load_model, load_tokenizer
from trainer.student.chat_format import EOT, ParsedTurn, encode
from trainer.student.episode_trace import trace_of
from trainer.student.episodes import choose, run_episodes
from trainer.student.merged_adapter import merged_adapter


class Echo:
    """Answers every turn with a result of its own length, and ends after `turns` turns."""

    def __init__(self, prompt: str, turns: int) -> None:
        self.tools: list[dict[str, Any]] = []
        self.prompt, self.turns, self.seen = prompt, turns, 0

    def reset(self) -> list[Message]:
        self.seen = 0
        return [{"role": "system", "content": "s"}, {"role": "user", "content": self.prompt}]

    def step(self, turn: ParsedTurn) -> list[Message] | None:
        self.seen += 1
        return None if self.seen >= self.turns else [{"role": "tool", "content": "result " * self.seen}]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    base = tiny_base(tmp_path_factory.mktemp("bases"))
    return load_model(base, StudentConfig()).eval(), load_tokenizer(base)


def _eager(model: Any, token: int) -> None:
    """Makes the end of a turn likely, so that episodes have several turns."""
    with torch.no_grad():
        model.lm_head.weight[token] += 0.35


def test_batch_equals_one_by_one_and_every_choice_is_the_likeliest(student: tuple[Any, Any]) -> None:
    model, tokenizer = student
    environments = [Echo("a", 1), Echo("a longer prompt, with 12 words", 3), Echo("b " * 40, 2)]
    together = run_episodes(model, tokenizer, environments, max_turns=4, max_new_tokens=12)
    for environment, episode in zip(environments, together, strict=True):
        alone = run_episodes(model, tokenizer, [environment], max_turns=4, max_new_tokens=12)[0]
        assert alone.ids == episode.ids
        with torch.no_grad():
            best = model(input_ids=torch.tensor([episode.ids])).logits[0].argmax(-1).tolist()
        for position, written in enumerate(episode.written):
            if written:
                assert episode.ids[position] == best[position - 1]


def test_what_was_given_is_tokenised_as_in_training(student: tuple[Any, Any]) -> None:
    model, tokenizer = student
    environment = Echo("where is MAX_LOAD?", 2)
    episode = run_episodes(model, tokenizer, [environment], max_turns=2, max_new_tokens=8, temperature=1.0, seed=3)[0]
    opening = encode(tokenizer, environment.reset(), generation_prompt=True).ids
    assert episode.ids[: len(opening)] == opening
    assert episode.written[: len(opening)] == [False] * len(opening)
    assert episode.turn_ends[-1] == len(episode.ids)
    assert len(episode.ids) == len(episode.written)


def test_sampling_depends_on_the_seed_and_not_on_the_batch(student: tuple[Any, Any]) -> None:
    model, tokenizer = student

    def ids(prompts: list[str], seed: int) -> list[list[int]]:
        environments = [Echo(prompt, 1) for prompt in prompts]
        options = {"max_turns": 1, "max_new_tokens": 10, "temperature": 1.0, "seed": seed}
        return [episode.ids for episode in run_episodes(model, tokenizer, environments, **options)]

    both = ids(["x", "y"], 7)
    assert both[0] == ids(["x"], 7)[0]
    assert both[1] == ids(["y"], 8)[0]
    assert ids(["x"], 9)[0] != both[0]


def test_endless_turn_is_cut_and_named(student: tuple[Any, Any]) -> None:
    model, tokenizer = student
    episode = run_episodes(model, tokenizer, [Echo("x", 9)], max_turns=9, max_new_tokens=3, temperature=1.0)[0]
    if episode.ids[-1] != tokenizer.eos_token_id:
        assert episode.stop == "max_tokens"
    assert sum(episode.written) <= 3 * 9


def test_episode_ends_where_the_window_is_full(student: tuple[Any, Any]) -> None:
    model, tokenizer = student
    opening = len(encode(tokenizer, Echo("x", 9).reset(), generation_prompt=True).ids)
    options: dict[str, Any] = {"max_turns": 9, "max_new_tokens": 12, "temperature": 1.0}
    free = run_episodes(model, tokenizer, [Echo("x", 9)], **options)[0]
    for window in range(opening - 1, len(free.ids) + 2):
        long, short = run_episodes(
            model, tokenizer, [Echo("many words " * 99, 9), Echo("x", 9)], window=window, **options
        )
        assert (long.stop, long.ids, long.parsed) == ("window", [], [])
        assert len(short.ids) <= max(window, 0)
        assert short.ids == run_episodes(model, tokenizer, [Echo("x", 9)], window=window, seed=1, **options)[0].ids
        if window <= opening:
            assert (short.stop, short.parsed) == ("window", [])
        else:
            assert short.turn_ends[-1] == len(short.ids)
            assert len(short.turn_ends) == len(short.parsed)


def test_window_is_never_beyond_the_positions_of_the_model(student: tuple[Any, Any]) -> None:
    model, tokenizer = student
    positions = model.config.max_position_embeddings
    prompt = "word " * 2 * positions
    assert run_episodes(model, tokenizer, [Echo(prompt, 1)], max_turns=1, max_new_tokens=2)[0].stop == "window"
    wide = run_episodes(model, tokenizer, [Echo(prompt, 1)], max_turns=1, max_new_tokens=2, window=10**6)[0]
    assert wide.stop == "window"


class Broken(Echo):
    """Fails when it is opened, or in a later turn."""

    def __init__(self, at: int) -> None:
        super().__init__("b", 9)
        self.at = at

    def reset(self) -> list[Message]:
        if self.at == 0:
            raise OSError("no space left on device")
        return super().reset()

    def step(self, turn: ParsedTurn) -> list[Message] | None:
        if self.seen + 1 >= self.at:
            raise RuntimeError("sandbox is gone")
        return super().step(turn)


def test_environment_that_raises_ends_its_own_episode_alone(student: tuple[Any, Any]) -> None:
    model, tokenizer = copy.deepcopy(student[0]), student[1]
    _eager(model, tokenizer.convert_tokens_to_ids(EOT))
    _, at_once, later = environments = [Echo("a", 1), Broken(0), Broken(1)]
    good, unopened, failed = run_episodes(model, tokenizer, environments, max_turns=3, max_new_tokens=400)
    assert good.ids == run_episodes(model, tokenizer, [Echo("a", 1)], max_turns=3, max_new_tokens=400)[0].ids
    assert at_once.seen == later.seen == 0
    assert (unopened.stop, unopened.error, unopened.ids) == ("error", "OSError: no space left on device", [])
    assert (failed.stop, failed.error, len(failed.parsed)) == ("error", "RuntimeError: sandbox is gone", 1)


def test_episode_becomes_a_trace_with_its_failures() -> None:
    call = {"id": "call_0", "type": "function", "function": {"name": "Bash", "arguments": {"command": "false"}}}
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "do it"},
        {"role": "assistant", "content": "I try.", "tool_calls": [call]},
        {"role": "tool", "content": "Exit code 1\nno", "tool_call_id": "call_0"},
        {"role": "assistant", "content": "It failed."},
    ]
    trace = trace_of(messages, reference=None, student="llama-claude-bc-v1")
    assert [(c.tool, c.is_error, c.error_kind, c.reasoning) for c in trace.tool_calls] == [
        ("Bash", True, "exit_code", "I try.")
    ]
    assert trace.claude_response == "It failed."
    assert trace.status == "complete"
    assert trace.teacher.student == "llama-claude-bc-v1"
    unfinished = trace_of(messages[:-1], reference=trace, student="x")
    assert (unfinished.status, unfinished.claude_response) == ("interrupted", "")
    assert unfinished.trace_id == trace.trace_id


def test_adapter_is_merged_while_the_student_writes_and_untouched_afterwards(student: tuple[Any, Any]) -> None:
    model, tokenizer = student
    policy = get_peft_model(copy.deepcopy(model), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    before = {name: weight.detach().clone() for name, weight in policy.named_parameters()}
    ids = torch.tensor([tokenizer.encode("where is MAX_LOAD?")])
    with torch.no_grad():
        apart = policy(input_ids=ids).logits
        with merged_adapter(policy):
            assert any(layer.merged for layer in policy.modules() if isinstance(layer, Linear))
            torch.testing.assert_close(policy(input_ids=ids).logits, apart, rtol=1e-4, atol=1e-4)
        assert torch.equal(policy(input_ids=ids).logits, apart)
    assert not any(layer.merged for layer in policy.modules() if isinstance(layer, Linear))
    after = dict(policy.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_merging_is_undone_where_the_environment_breaks_the_block(student: tuple[Any, Any]) -> None:
    policy = get_peft_model(copy.deepcopy(student[0]), LoraConfig(r=4, target_modules="all-linear"))
    with pytest.raises(KeyboardInterrupt), merged_adapter(policy):
        raise KeyboardInterrupt
    assert not any(layer.merged for layer in policy.modules() if isinstance(layer, Linear))


def test_tokens_are_drawn_as_often_as_their_chances_say() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0, -1.0]])
    chances = torch.softmax(logits[0] / 0.7, -1)
    count = 4000
    generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
    drawn = torch.bincount(torch.tensor(choose(logits.expand(count, -1), generators, 0.7)), minlength=5)
    spread = (chances * (1 - chances) / count).sqrt()
    assert drawn[2] == 0
    assert ((drawn / count - chances).abs() <= 4 * spread).all()
