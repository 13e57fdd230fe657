"""Students at work: batches of multi-turn episodes in which what the student writes is executed.

Tokens go in and tokens come out: nothing that was sampled is ever decoded and encoded again, so that the ids of
an episode are exactly what the model saw and wrote. All episodes of a batch move in lock step; at each position
an episode is either fed its next given token or the token it has just chosen, hence no padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch

from claude_capture.claude_trace_schema import Trace
from trainer.records import Message
from trainer.student.chat_format import EOT, ParsedTurn, encode, parse_assistant
from trainer.student.kv_cache import in_place_cache
from trainer.student.merged_adapter import merged_adapter

Stop = Literal["answer", "max_turns", "max_tokens", "environment", "window", "error"]
"""How an episode ended: with an answer, at a limit of turns or of tokens in a turn, because the environment had
nothing more to serve, because the window was full, or because the environment failed (see `Episode.error`)."""


class Environment(Protocol):
    """What answers a student's calls."""

    tools: list[dict[str, Any]]

    def reset(self) -> list[Message]:
        """The system and user messages that open the episode."""
        ...

    def step(self, turn: ParsedTurn) -> list[Message] | None:
        """One tool message per call of the turn (malformed ones included), or None where the episode is over."""
        ...


@dataclass(frozen=True)
class Case:
    """One prompt to be worked on, with the teacher's traces of it."""

    trace_id: str
    references: tuple[Trace, ...]
    make_environment: Callable[[], Environment]
    workflow_type: str = "conversation"
    split: str = "test"


@dataclass
class Episode:
    """What happened. `ids` and `written` have one entry per token."""

    messages: list[Message]
    ids: list[int] = field(default_factory=list)
    written: list[bool] = field(default_factory=list)
    """True for tokens that the student chose, the closing EOT of each turn included."""
    turn_ends: list[int] = field(default_factory=list)
    """Index behind the last token of each written turn."""
    parsed: list[ParsedTurn] = field(default_factory=list)
    malformed: int = 0
    """Number of calls that could not be read."""
    stop: Stop = "answer"
    log_probs: list[float] = field(default_factory=list)
    """Of the written tokens, in nats, as a server that wrote them gave them; empty where the model itself wrote."""
    error: str = ""
    """What the environment raised, as `Type: message`, where `stop` is "error"."""


class EpisodeInFlight:
    """An episode that goes on. `pending` holds the tokens that the model has yet to be fed, in order."""

    def __init__(self, environment: Environment, tokenizer: Any, seed: int, window: int) -> None:
        self.environment = environment
        self.tokenizer = tokenizer
        self.window = window
        self.random = torch.Generator().manual_seed(seed)
        self.episode = Episode(messages=[])
        self.calls = 0
        self.turn: list[int] = []
        self.pending: list[tuple[int, bool]] = []
        try:
            self.episode.messages += environment.reset()
        except Exception as error:
            self._fail(error)
        else:
            opening = encode(tokenizer, self.episode.messages, environment.tools, generation_prompt=True)
            if len(opening.ids) < window:
                self.pending = [(token, False) for token in opening.ids]
            else:
                self.episode.stop = "window"

    def _fail(self, error: Exception) -> None:
        self.episode.stop = "error"
        self.episode.error = f"{type(error).__name__}: {error}"

    def take(self, count: int) -> list[int]:
        """Moves `count` pending tokens into the episode and returns them."""
        taken, self.pending = self.pending[:count], self.pending[count:]
        self.episode.ids += [token for token, _ in taken]
        self.episode.written += [written for _, written in taken]
        return [token for token, _ in taken]

    def choose(self, token: int, end: int, max_turns: int, max_new_tokens: int) -> bool:
        """Takes the token that the student chose; returns True where the episode is over."""
        self.pending = [(token, True)]
        self.turn.append(token)
        episode = self.episode
        full = len(episode.ids) + 1 >= self.window
        if token != end and len(self.turn) < max_new_tokens and not full:
            return False
        episode.turn_ends.append(len(episode.ids) + 1)
        parsed = parse_assistant(self.tokenizer.decode(self.turn, skip_special_tokens=False), self.calls)
        self.turn = []
        self.calls += len(parsed.message.get("tool_calls", []))
        episode.parsed.append(parsed)
        episode.messages.append(parsed.message)
        episode.malformed += len(parsed.malformed)
        results = None
        try:
            results = self.environment.step(parsed) if token == end else None
        except Exception as error:
            self._fail(error)
        if results is not None:
            episode.messages += results
            if len(episode.parsed) < max_turns:
                given = encode(self.tokenizer, results, generation_prompt=True, opening=False)
                if len(episode.ids) + 1 + len(given.ids) < self.window:
                    self.pending += [(given_token, False) for given_token in given.ids]
                    return False
                episode.stop = "window"
            else:
                episode.stop = "max_turns"
        elif episode.error:
            pass
        elif token != end:
            episode.stop = "window" if full else "max_tokens"
        elif parsed.message.get("tool_calls") or parsed.malformed:
            episode.stop = "environment"
        self.take(1)
        return True


def longest_episode(model: Any, window: int | None) -> int:
    """Tokens of the longest episode: `window`, but no more than the model has positions; None asks for those."""
    positions: int = model.config.max_position_embeddings
    return min(window or positions, positions)


def run_episodes(
    model: Any,
    tokenizer: Any,
    environments: Sequence[Environment],
    *,
    max_turns: int,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    window: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Episode]:
    """Lets the student work in every environment until it answers.

    An environment that raises ends its own episode with `stop="error"`; the others go on.

    Args:
        model: causal language model of transformers, in eval mode; one batch holds all environments.
        max_turns: longest episode, in assistant turns.
        max_new_tokens: longest turn, in tokens; a longer one ends the episode with `stop="max_tokens"`.
        temperature: 0 takes the most likely token, above 0 samples.
        seed: episode i draws from its own generator, seeded with `seed + i`, whatever else is in the batch.
        window: longest episode in tokens, see `longest_episode`; it ends with `stop="window"` where the next turn
            would not fit, at once where its prompt does not.
        progress: called with the number of episodes that have just ended.
    """
    end = tokenizer.convert_tokens_to_ids(EOT)
    window = longest_episode(model, window)
    rows = [
        EpisodeInFlight(environment, tokenizer, seed + index, window) for index, environment in enumerate(environments)
    ]
    active = [row for row in rows if row.pending]
    cache = in_place_cache()
    with merged_adapter(model):
        while active:
            count = min(len(row.pending) for row in active)
            inputs = torch.tensor([row.take(count) for row in active], device=model.device)
            with torch.inference_mode():
                outputs = model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
            logits = outputs.logits[:, -1]
            ended: list[EpisodeInFlight] = []
            waiting = [index for index, row in enumerate(active) if not row.pending]
            if waiting:
                chosen = choose(logits[waiting].float(), [active[index].random for index in waiting], temperature)
                for index, token in zip(waiting, chosen, strict=True):
                    if active[index].choose(token, end, max_turns, max_new_tokens):
                        ended.append(active[index])
            if ended:
                kept = [index for index, row in enumerate(active) if row not in ended]
                cache.batch_select_indices(torch.tensor(kept, dtype=torch.long, device=model.device))
                active = [active[index] for index in kept]
                if progress is not None:
                    progress(len(ended))
    return [row.episode for row in rows]


def choose(logits: torch.Tensor, generators: Sequence[torch.Generator], temperature: float) -> list[int]:
    """One token per row of [rows, vocabulary]: the likeliest, or the one at a uniform draw of the cumulated chances."""
    if temperature == 0:
        chosen = logits.argmax(-1)
    else:
        # a model gone wrong writes garbage, which is scored as such; it must not end the run in the sampler
        cumulated = torch.softmax(torch.nan_to_num(logits).double() / temperature, -1).cumsum(-1)
        draws = torch.tensor([[torch.rand((), generator=g, dtype=torch.double)] for g in generators])
        places = draws.to(logits.device) * cumulated[:, -1:]
        chosen = torch.searchsorted(cumulated, places, right=True).squeeze(-1).clamp_(max=logits.shape[-1] - 1)
    tokens: list[int] = chosen.tolist()
    return tokens
