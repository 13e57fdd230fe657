"""PPO's episodes, written by a vLLM server: token ids go in, token ids and their log-probabilities come out.

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve BASE --enable-lora --logprobs-mode processed_logprobs

Before each update the student's adapter is loaded into the running server, under a name made of its bytes: vLLM keeps
what it has computed of a prompt by the adapter's name, so a name that is used again for other weights would answer with
the old ones' (vLLM issue 42125). The server reads the adapter from the run folder, which it must see at the same path.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from trainer.ppo.checkpoints import fingerprint
from trainer.ppo.importance import GenerationServerError
from trainer.ppo.value_head import POLICY, adapter_state, save_adapter
from trainer.processes import is_main_process, wait_for_all
from trainer.student.chat_format import EOT
from trainer.student.episodes import Environment, Episode, EpisodeInFlight

TRIES = 5
BUSY = {429, 502, 503, 504}
"""HTTP statuses that mean "later"."""
CONVERSATIONS = 64
"""Most episodes that are asked for at the same time."""
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class GenerationServer:
    """One vLLM server and the student that it holds.

    Args:
        url: where it listens, without /v1. A key that it asks for is read from VLLM_API_KEY.
        folder: the run folder; adapters are handed over in `served/` below it.
        seconds: longest wait for one answer.
        pause: seconds before the second try; doubled each time.
    """

    def __init__(self, url: str, folder: Path, *, seconds: float = 600.0, pause: float = 1.0) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._folder = folder.absolute() / "served"
        self._prefix = f"{folder.name}-"
        self._seconds = seconds
        self._pause = pause
        self._tries = TRIES
        self._serving = ""
        self._window: int | None = None
        loopback = urllib.parse.urlsplit(self.url).hostname in _LOOPBACK
        proxies = urllib.request.ProxyHandler({} if loopback else None)
        self._open = urllib.request.build_opener(proxies).open

    def take_over(self, policy: Any) -> None:
        """Makes the server write as this student does; all processes call it together.

        Raises:
            GenerationServerError: it does not answer, takes no adapters while it runs, or refuses this one.
        """
        if whole := policy.peft_config[POLICY].modules_to_save:
            raise GenerationServerError(
                f"vLLM serves LoRA alone, and this adapter holds all of {', '.join(sorted(whole))} "
                "(sft.train_embeddings); leave ppo.generation_server out"
            )
        name = f"{self._prefix}{fingerprint(adapter_state(policy))[:12]}"
        if name == self._serving:
            return
        save_adapter(policy, self._folder / name)
        if is_main_process():
            self._load(name)
        wait_for_all()
        self._window = self._base().get("max_model_len")
        self._serving = name

    def close(self) -> None:
        """Takes the student out of the server, if it still answers, and its files out of the run folder."""
        if is_main_process() and self._serving:
            self._tries = 1
            with contextlib.suppress(GenerationServerError):  # training is over, and needs it no longer
                self._unload_all()
            shutil.rmtree(self._folder, ignore_errors=True)
        self._serving = ""

    def run_episodes(
        self,
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
        """What `trainer.student.episodes.run_episodes` does, by the student that was taken over last.

        Each episode goes at its own pace. Turn t of episode i is drawn with a seed made of (seed + i, t); vLLM's
        numbers depend on what else it computes at the time, so another run may still draw other tokens.

        Args:
            model: says how many positions there are; it writes nothing.

        Raises:
            GenerationServerError: no answer after all tries, or one without usable tokens.
        """
        end = tokenizer.convert_tokens_to_ids(EOT)
        window = min(filter(None, (window, model.config.max_position_embeddings, self._window)))
        flights = [EpisodeInFlight(each, tokenizer, seed + index, window) for index, each in enumerate(environments)]

        def play(index: int) -> None:
            flight = flights[index]
            while flight.pending:
                flight.take(len(flight.pending))
                self._turn(flight, end, max_turns, max_new_tokens, window, temperature, seed + index)
            if progress is not None:
                progress(1)

        with ThreadPoolExecutor(min(CONVERSATIONS, max(1, len(flights)))) as pool:
            futures = [pool.submit(play, index) for index in range(len(flights))]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [flight.episode for flight in flights]

    def _turn(
        self,
        flight: EpisodeInFlight,
        end: int,
        max_turns: int,
        max_new_tokens: int,
        window: int,
        temperature: float,
        seed: int,
    ) -> None:
        """Asks for a turn, or for what is left of one, and carries it out."""
        episode = flight.episode
        room = min(max_new_tokens - len(flight.turn), window - len(episode.ids))
        number = np.random.SeedSequence([seed, len(episode.ids)]).generate_state(1, np.uint32)[0]
        written = self._complete(episode.ids, room, temperature, int(number), end)
        for place, (token, log_prob) in enumerate(written, 1):
            episode.log_probs.append(log_prob)
            turns = len(episode.parsed)
            over = flight.choose(token, end, max_turns, max_new_tokens)
            if over or len(episode.parsed) > turns:
                return
            if place < len(written):
                flight.take(1)

    def _complete(
        self, ids: Sequence[int], count: int, temperature: float, seed: int, end: int
    ) -> list[tuple[int, float]]:
        """The next tokens and their log-probabilities, up to `count` or the end of the turn, which is included."""
        answer = self._json(
            "POST",
            "/v1/completions",
            {
                "model": self._serving,
                "prompt": list(ids),
                "max_tokens": count,
                "temperature": temperature,
                "seed": seed,
                "stop_token_ids": [end],
                "ignore_eos": True,  # our turns end with that token alone
                # the base's generation_config.json would cut the distribution, and the server would say nothing of it
                "top_p": 1.0,
                "top_k": 0,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "presence_penalty": 0.0,
                "frequency_penalty": 0.0,
                "logprobs": 0,
                "return_token_ids": True,
            },
        )
        try:
            choice = answer["choices"][0]
            tokens, seen = choice["token_ids"], choice["prompt_token_ids"]
            log_probs = choice["logprobs"]["token_logprobs"]
        except (KeyError, IndexError, TypeError):
            raise GenerationServerError(
                f"{self.url}: no token ids and log-probabilities in its answer; update vLLM (return_token_ids)"
            ) from None
        if tokens is None or seen is None:
            raise GenerationServerError(f"{self.url}: its vLLM does not know return_token_ids; update it")
        if list(seen) != list(ids):
            raise GenerationServerError(f"{self.url}: it has changed the {len(ids)} tokens of a prompt; is it vLLM?")
        finite = all(value is not None and math.isfinite(value) for value in log_probs)
        if not tokens or len(log_probs) != len(tokens) or not finite:
            raise GenerationServerError(
                f"{self.url}: {len(tokens)} tokens with {len(log_probs)} log-probabilities cannot be learned from"
            )
        return list(zip(tokens, log_probs, strict=True))

    def _base(self) -> dict[str, Any]:
        """The server's card of its base model."""
        cards = self._json("GET", "/v1/models").get("data") or []
        return next((card for card in cards if not card.get("parent")), {})

    def _load(self, name: str) -> None:
        """Puts the adapter in the place of the one before."""
        self._unload_all()
        try:
            self._ask("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(self._folder / name)})
        except _RefusedError as refused:
            if "already been loaded" not in refused.reason:  # by a try whose answer was lost
                raise self._explained(refused, "the adapter") from None
        for old in self._folder.iterdir():
            if old.name != name:
                shutil.rmtree(old, ignore_errors=True)

    def _unload_all(self) -> None:
        """Takes every student of this run out, those that a killed run left included."""
        cards = self._json("GET", "/v1/models").get("data") or []
        for loaded in [card["id"] for card in cards if card["id"].startswith(self._prefix)]:
            try:
                self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": loaded})
            except _RefusedError as refused:
                if "cannot be found" not in refused.reason:
                    raise self._explained(refused, f"to give up {loaded}") from None

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = json.loads(self._ask(method, path, body))
        except _RefusedError as refused:
            raise self._explained(refused, path) from None
        except ValueError:
            raise GenerationServerError(f"{self.url}{path}: the answer is not JSON; is it a vLLM server?") from None
        if not isinstance(answer, dict):
            raise GenerationServerError(f"{self.url}{path}: the answer is no JSON object; is it a vLLM server?")
        return answer

    def _explained(self, refused: _RefusedError, what: str) -> GenerationServerError:
        if refused.status == 404 and "lora" in refused.path:
            return GenerationServerError(
                f"{self.url}: it takes no adapters while it runs; start vLLM with --enable-lora and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
            )
        if refused.status in (401, 403):
            return GenerationServerError(f"{self.url}: it wants a key; set VLLM_API_KEY")
        return GenerationServerError(f"{self.url}: it refuses {what} (HTTP {refused.status}): {refused.reason}")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        """One answer, after as many tries as it takes."""
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("VLLM_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        reason = ""
        for attempt in range(self._tries):
            if attempt:
                time.sleep(self._pause * 2 ** (attempt - 1))
            try:
                with self._open(request, timeout=self._seconds) as answer:
                    content: bytes = answer.read()
                    return content
            except urllib.error.HTTPError as error:
                said = _message(error.read())
                if error.code not in BUSY:
                    raise _RefusedError(path, error.code, said) from None
                reason = f"HTTP {error.code}: {said}"
            except TimeoutError:
                reason = f"no answer within {self._seconds:.0f} s"
            except (OSError, http.client.HTTPException) as error:
                cause = getattr(error, "reason", error)
                reason = f"no answer within {self._seconds:.0f} s" if isinstance(cause, TimeoutError) else str(cause)
        raise GenerationServerError(
            f"{self.url}: the generation server cannot be reached ({reason}; {self._tries} tries); start it, or leave "
            "ppo.generation_server out, and run the same command again"
        )


class _RefusedError(Exception):
    """An HTTP status that trying again does not change."""

    def __init__(self, path: str, status: int, reason: str) -> None:
        super().__init__(path, status, reason)
        self.path = path
        self.status = status
        self.reason = reason


def _message(body: bytes) -> str:
    """What vLLM says is wrong: `{"error": {"message": …}}`, or FastAPI's `{"detail": …}`; first line."""
    try:
        answer = json.loads(body)
        said = answer["error"]["message"] if "error" in answer else answer.get("detail") or answer.get("message")
    except (ValueError, KeyError, TypeError, AttributeError):
        said = body.decode(errors="replace")
    return str(said).strip().split("\n")[0][:300]
