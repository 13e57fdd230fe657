"""A GGUF works in an environment as the trained model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM

from trainer.errors import TrainerError
from trainer.export.llama_runtime import GgufModel, run_episode
from trainer.student.chat_format import EOT, encode, render
from trainer.student.episodes import run_episodes


@pytest.fixture(scope="session")
def llama(exported: Any) -> Any:
    with GgufModel(exported.plain) as model:
        yield model


def test_learned_episode_is_worked_through_with_its_tool_call(llama: GgufModel, database: Any) -> None:
    environment = database()
    episode = run_episode(llama, environment, max_turns=4, max_new_tokens=100)
    assert episode.stop == "answer"
    assert environment.asked == [{"database": "grid.db", "sql": "SELECT id, kva FROM transformers WHERE id IN (1, 2)"}]
    assert episode.messages[-1]["content"] == "Transformer 1 has 630 kVA, transformer 2 has 1000 kVA."


def test_quantised_student_works_too(exported: Any, database: Any) -> None:
    with GgufModel(exported.quantized, n_ctx=512) as quantised:
        episode = run_episode(quantised, database(), max_turns=4, max_new_tokens=100)
    assert [len(turn.message.get("tool_calls", [])) for turn in episode.parsed] == [1, 0]
    assert episode.malformed == 0


def test_episode_is_the_trainers_own_token_for_token(
    llama: GgufModel, learned: Path, tokenizer: Any, database: Any
) -> None:
    model = LlamaForCausalLM.from_pretrained(learned).eval()
    ours = run_episode(llama, database(), max_turns=4, max_new_tokens=100)
    assert ours == run_episodes(model, tokenizer, [database()], max_turns=4, max_new_tokens=100)[0]


@pytest.mark.parametrize(("limits", "stop"), [((1, 100), "max_turns"), ((4, 5), "max_tokens")])
def test_limits_end_an_episode_as_in_the_trainer(
    llama: GgufModel, learned: Path, tokenizer: Any, database: Any, limits: tuple[int, int], stop: str
) -> None:
    model = LlamaForCausalLM.from_pretrained(learned).eval()
    turns, tokens = limits
    ours = run_episode(llama, database(), max_turns=turns, max_new_tokens=tokens)
    assert ours.stop == stop
    assert ours == run_episodes(model, tokenizer, [database()], max_turns=turns, max_new_tokens=tokens)[0]


def test_turns_are_reported_as_they_come(llama: GgufModel, database: Any) -> None:
    seen: list[list[str]] = []
    run_episode(
        llama, database(), max_turns=4, max_new_tokens=100, on_turn=lambda turn: seen.append([m["role"] for m in turn])
    )
    assert seen == [["assistant", "tool"], ["assistant"]]


def test_only_new_tokens_are_evaluated_in_the_second_turn(llama: GgufModel, database: Any) -> None:
    evaluated: list[int] = []
    inner = llama._llama.eval
    llama._llama.eval = lambda tokens: (evaluated.append(len(tokens)), inner(tokens))
    try:
        llama.generate(llama.encode("<|begin_of_text|>other"), max_new_tokens=1)
        evaluated.clear()
        episode = run_episode(llama, database(), max_turns=4, max_new_tokens=100)
    finally:
        llama._llama.eval = inner
    prompt = episode.written.index(True)
    assert evaluated[0] >= prompt - 1
    # The last token of an episode is chosen, never evaluated; the shared BOS was there before.
    assert sum(evaluated) <= len(episode.ids)


def test_conversation_is_encoded_as_in_training(llama: GgufModel, tokenizer: Any, database: Any) -> None:
    messages = [*database().reset(), {"role": "assistant", "content": "a <|eot_id|> b ⟨é⟩ <\\| c"}]
    assert encode(llama, messages, database.tools) == encode(tokenizer, messages, database.tools)


def test_decoding_gives_the_text_back(llama: GgufModel, database: Any) -> None:
    text = render([*database().reset(), {"role": "assistant", "content": "Grüße 你好 👩‍👩‍👧 \x00"}])
    ids = llama.encode(text)
    assert llama.decode(ids) == text
    assert "<|" not in llama.decode(ids, skip_special_tokens=True)
    assert llama.decode(llama.encode("é")[:1]) == "\ufffd"


def test_turn_ends_at_the_end_of_turn_token(llama: GgufModel, database: Any) -> None:
    opening = encode(llama, database().reset(), database.tools, generation_prompt=True).ids
    written = llama.generate(opening, max_new_tokens=200)
    assert llama.decode(written).endswith(EOT)
    assert llama.ends_generation(written[-1])
    assert not llama.ends_generation(llama.convert_tokens_to_ids("<|python_tag|>"))


def test_generation_is_repeatable_and_sampling_is_not_greedy(llama: GgufModel, database: Any) -> None:
    prompt = llama.encode("<|begin_of_text|>kva")
    assert llama.generate(prompt, max_new_tokens=20) == llama.generate(prompt, max_new_tokens=20)
    samples = {tuple(llama.generate(prompt, max_new_tokens=20, temperature=3.0)) for _ in range(4)}
    assert len(samples) > 1


def test_prompt_that_fills_the_context_is_refused(exported: Any) -> None:
    with (
        GgufModel(exported.plain, n_ctx=256) as small,
        pytest.raises(TrainerError, match="prompt of 256 tokens fills the context of 256"),
    ):
        small.generate([1] * 256, max_new_tokens=1)


def test_context_is_never_overrun(exported: Any) -> None:
    with GgufModel(exported.plain, n_ctx=256) as small:
        assert len(small.generate([1] * 250, max_new_tokens=100)) <= 6


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "failed to read magic"),
        (b"GGUF", "failed to read header"),
        (b"hello world", "invalid magic characters: 'hell'"),
        (b"GGUF\x03\x00\x00\x00" + b"\xff" * 64, "number of tensors is -1"),
        (None, "data is not within the file bounds"),
    ],
)
def test_file_that_cannot_be_loaded_is_one_line_with_the_cause(
    exported: Any, tmp_path: Path, content: bytes | None, reason: str, capfd: Any
) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(exported.plain.read_bytes()[:-100_000] if content is None else content)
    with pytest.raises(TrainerError, match=rf"x\.gguf: llama\.cpp cannot load it: .*{reason}") as failure:
        GgufModel(path)
    assert "\n" not in str(failure.value)
    assert capfd.readouterr() == ("", "")
