"""A GGUF at work in llama.cpp: the same chat format, the same tokens in and out as in training.

`GgufModel` quacks like the tokenizer and the model that the trainer uses: conversations are encoded piece by piece with
the GGUF's own vocabulary, and what the model wrote is fed back as the very tokens it chose. Between the turns of an
episode only the new tokens are evaluated: llama.cpp keeps the rest in its cache.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.errors import TrainerError
from trainer.export.llama_library import first_error, forget_log, llama_library, thread_count
from trainer.student.chat_format import EOT, encode, parse_assistant

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainer.student.episodes import Environment, Episode


class GgufModel:
    """One loaded GGUF with one context. Close it, or use it in a `with` block: llama.cpp frees nothing by itself.

    Args:
        path: the GGUF.
        n_ctx: context in tokens; 0 takes what the model was made for.
        logits: keep the logits of every position, and the cache in float32 instead of float16, so that a comparison
            measures the file and nothing else; costs n_ctx × vocabulary × 4 bytes.
        vocab_only: load no weights; only `encode` and `decode` work.
        threads: 0 takes OMP_NUM_THREADS, else all cores.

    Raises:
        TrainerError: not a GGUF, or llama.cpp cannot load it (with its own words).
    """

    def __init__(
        self, path: Path, *, n_ctx: int = 0, logits: bool = False, vocab_only: bool = False, threads: int = 0
    ) -> None:
        library = llama_library()
        count = thread_count(threads)
        forget_log()
        if not path.is_file():
            raise TrainerError(f"{path}: no such file")
        try:
            self._llama: Any = library.Llama(
                str(path),
                n_ctx=64 if vocab_only else n_ctx,
                logits_all=logits,
                vocab_only=vocab_only,
                n_threads=count,
                n_threads_batch=count,
                verbose=False,
                **({"type_k": library.GGML_TYPE_F32, "type_v": library.GGML_TYPE_F32} if logits else {}),
            )
        except (ValueError, RuntimeError) as error:
            raise TrainerError(f"{path}: llama.cpp cannot load it: {first_error() or error}") from None
        self.path = path
        self._library = library
        self._vocab = library.llama_model_get_vocab(self._llama.model)
        self.n_ctx: int = self._llama.n_ctx()
        self.vocab_size: int = self._llama.n_vocab()
        self.metadata: dict[str, str] = self._llama.metadata
        self._end = self.convert_tokens_to_ids(EOT)

    def __enter__(self) -> GgufModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees the model and its context; safe to call twice."""
        self._llama.close()

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Tokens of a text; control tokens in it are recognised, as transformers does.

        Args:
            add_special_tokens: let llama.cpp add what the GGUF tells it to add (BOS, if `add_bos_token`).
        """
        ids: list[int] = self._llama.tokenize(text.encode(), add_bos=add_special_tokens, special=True)
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text of tokens; bytes that are not UTF-8 become U+FFFD."""
        pieces = (self.piece(token, skip_special_tokens=skip_special_tokens) for token in ids)
        return b"".join(pieces).decode("utf-8", "replace")

    def piece(self, token: int, *, skip_special_tokens: bool = False) -> bytes:
        """The bytes of one token; they may end within a character."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = self._library.llama_token_to_piece(self._vocab, token, buffer, size, 0, not skip_special_tokens)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def header(self, key: str) -> str | None:
        """One field of the GGUF's header as text; None where it is missing."""
        name, size = key.encode(), 1024
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = self._library.llama_model_meta_val_str(self.model, name, buffer, size)
            if length < size:
                return buffer.raw[:length].decode("utf-8", "replace") if length >= 0 else None
            size = length + 1

    @property
    def model(self) -> Any:
        """llama.cpp's own model: further contexts may be made on the same weights."""
        return self._llama.model

    def convert_tokens_to_ids(self, token: str) -> int:
        """The id of a control token.

        Raises:
            TrainerError: the text is not exactly one token of this vocabulary.
        """
        ids = self.encode(token)
        if len(ids) != 1:
            raise TrainerError(f"{self.path}: {token} is not a token of this model; its tokenizer is not Llama 3.1's")
        return ids[0]

    def ends_generation(self, token: int) -> bool:
        """True where llama.cpp, and every server on it, stops at this token."""
        return bool(self._library.llama_vocab_is_eog(self._vocab, token))

    def generate(self, ids: Sequence[int], *, max_new_tokens: int, temperature: float = 0.0) -> list[int]:
        """Continues `ids` until a turn ends, the limit is reached or the context is full.

        The common prefix with the previous call is not evaluated again.

        Returns:
            The new tokens, the one that ended the turn included.

        Raises:
            TrainerError: the prompt fills the context.
        """
        room = self.n_ctx - len(ids)
        if room < 1:
            raise TrainerError(f"prompt of {len(ids)} tokens fills the context of {self.n_ctx}; raise n_ctx")
        written: list[int] = []
        sampler = {"temp": temperature, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
        for token in self._llama.generate(list(ids), **sampler):
            written.append(int(token))
            if self.ends_generation(written[-1]) or len(written) >= min(max_new_tokens, room):
                break
        return written

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits [tokens, vocabulary] of every position; wants `logits=True` at loading."""
        self._llama.reset()
        self._llama.eval(list(ids))
        scores: NDArray[np.float32] = self._llama.scores[: len(ids)].copy()
        return scores


def run_episode(
    llama: GgufModel,
    environment: Environment,
    *,
    max_turns: int,
    max_new_tokens: int,
    on_turn: Callable[[list[Any]], None] | None = None,
) -> Episode:
    """Lets the model work greedily in an environment, like `trainer.student.episodes.run_episodes` does.

    Args:
        max_turns: longest episode, in assistant turns.
        max_new_tokens: longest turn, in tokens.
        on_turn: called with the messages of each turn as they come: the assistant's, then the results.
    """
    from trainer.student.episodes import Episode

    end = llama.convert_tokens_to_ids(EOT)
    episode = Episode(messages=list(environment.reset()))
    given = encode(llama, episode.messages, environment.tools, generation_prompt=True).ids
    calls = 0
    while True:
        episode.ids += given
        episode.written += [False] * len(given)
        turn = llama.generate(episode.ids, max_new_tokens=max_new_tokens)
        episode.ids += turn
        episode.written += [True] * len(turn)
        episode.turn_ends.append(len(episode.ids))
        parsed = parse_assistant(llama.decode(turn), calls)
        made = parsed.message.get("tool_calls", [])
        calls += len(made)
        episode.parsed.append(parsed)
        episode.malformed += len(parsed.malformed)
        ended = turn[-1] == end
        results = environment.step(parsed) if ended else None
        fresh = [parsed.message, *(results or [])]
        episode.messages += fresh
        if on_turn is not None:
            on_turn(fresh)
        if results is None:
            if not ended:
                episode.stop = "max_tokens"
            elif made or parsed.malformed:
                episode.stop = "environment"
            return episode
        if len(episode.parsed) >= max_turns:
            episode.stop = "max_turns"
            return episode
        given = encode(llama, results, generation_prompt=True, opening=False).ids
        if len(episode.ids) + len(given) >= llama.n_ctx:
            episode.stop = "max_tokens"
            return episode
