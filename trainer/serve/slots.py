"""Contexts of llama.cpp on one copy of the weights, each with the conversation that it worked on last.

A turn of a conversation begins with everything that was said before. A slot keeps the evaluated prefix, so that only
the new tokens cost time; which slot a request gets is decided by what would have to be evaluated and what would be
thrown away. A slot belongs to one request at a time.
"""

from __future__ import annotations

import asyncio
import ctypes
import random
import threading
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import asynccontextmanager

from trainer.errors import TrainerError
from trainer.export.llama_library import first_error, forget_log, llama_library, thread_count
from trainer.export.llama_runtime import GgufModel

BATCH = 512
"""Tokens that are evaluated at once; between two batches a request can be given up."""


class Overloaded(Exception):
    """Every slot is busy, and enough requests wait already."""


class Slot:
    """One context.

    Args:
        weights: the model; it must outlive the slot.
        context: tokens of prompt and reply together.
        threads: 0 takes OMP_NUM_THREADS, else all cores.

    Raises:
        TrainerError: there is not enough memory for the context.
    """

    def __init__(self, weights: GgufModel, context: int, threads: int = 0) -> None:
        self._library = llama_library()
        settings = self._library.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = context, BATCH, BATCH
        settings.n_threads = settings.n_threads_batch = thread_count(threads)
        # "auto" takes flash attention on a CPU, too: prompts are read a fifth faster, but with 1,500 tokens in the
        # context each new one takes four times as long
        settings.flash_attn_type = self._library.LLAMA_FLASH_ATTN_TYPE_DISABLED
        forget_log()
        self._context = self._library.llama_init_from_model(weights.model, settings)
        if not self._context:
            raise TrainerError(
                f"{weights.path}: no room for a context of {context} tokens ({first_error() or 'no reason given'}); "
                "lower --context or --slots"
            )
        self._memory = self._library.llama_get_memory(self._context)
        self.evaluated: list[int] = []
        """The tokens whose keys and values are in the context, in order."""
        self.used = 0
        """Number of the last request that had the slot."""

    def close(self) -> None:
        """Frees the context; safe to call twice."""
        if self._context:
            self._library.llama_free(self._context)
            self._context = None

    def shared(self, ids: Sequence[int]) -> int:
        """How many tokens of a prompt need no evaluation; the last one always does, because its logits are wanted."""
        known = self.evaluated
        most = min(len(known), len(ids) - 1)
        if known[:most] == ids[:most]:
            return most
        return next(index for index in range(most) if known[index] != ids[index])

    def generate(self, ids: Sequence[int], temperature: float, given_up: threading.Event) -> Generator[int, None, None]:
        """Continues `ids`, without end: the caller closes the iterator.

        Args:
            temperature: 0 takes the most likely token, above 0 samples.
            given_up: once set, nothing more is evaluated and the iterator ends.

        Raises:
            TrainerError: llama.cpp failed, or the context is full.
        """
        keep = self.shared(ids)
        if not self._library.llama_memory_seq_rm(self._memory, 0, keep, -1):
            self._library.llama_memory_clear(self._memory, True)
            keep = 0
        del self.evaluated[keep:]
        for start in range(keep, len(ids), BATCH):
            if given_up.is_set():
                return
            self._evaluate(ids[start : start + BATCH])
        sampler = self._sampler(temperature)
        try:
            while not given_up.is_set():
                token = int(self._library.llama_sampler_sample(sampler, self._context, -1))
                yield token
                self._evaluate([token])
        finally:
            self._library.llama_sampler_free(sampler)

    def _evaluate(self, ids: Sequence[int]) -> None:
        array = (ctypes.c_int32 * len(ids))(*ids)
        forget_log()
        status = self._library.llama_decode(self._context, self._library.llama_batch_get_one(array, len(ids)))
        if status != 0:
            self._library.llama_memory_clear(self._memory, True)
            self.evaluated.clear()
            raise TrainerError(f"llama.cpp cannot evaluate ({first_error() or f'status {status}'})")
        self.evaluated += ids

    def _sampler(self, temperature: float) -> ctypes.c_void_p:
        library = self._library
        if temperature <= 0:
            greedy: ctypes.c_void_p = library.llama_sampler_init_greedy()
            return greedy
        chain: ctypes.c_void_p = library.llama_sampler_chain_init(library.llama_sampler_chain_default_params())
        library.llama_sampler_chain_add(chain, library.llama_sampler_init_temp(temperature))
        library.llama_sampler_chain_add(chain, library.llama_sampler_init_dist(random.getrandbits(32)))
        return chain


class SlotPool:
    """Hands out slots; to be used in one event loop.

    Args:
        waiting: requests that may wait for a slot.
        patience: longest wait, in seconds.
    """

    def __init__(self, slots: Sequence[Slot], *, waiting: int = 16, patience: float = 60.0) -> None:
        self.size = len(slots)
        self._free = list(slots)
        self._gate = asyncio.Semaphore(len(slots))
        self._room = waiting
        self.waiting = 0
        """Requests that wait for a slot."""
        self._patience = patience
        self._served = 0

    @property
    def free(self) -> int:
        """Slots that no request has."""
        return len(self._free)

    @asynccontextmanager
    async def borrow(self, ids: Sequence[int]) -> AsyncIterator[Slot]:
        """The slot in which a prompt costs least: tokens to evaluate now, and again later for whoever loses them.

        Raises:
            Overloaded: none became free in time, or too many wait.
        """
        if self._gate.locked() and self.waiting >= self._room:
            raise Overloaded
        self.waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await self._gate.acquire()
        except TimeoutError:
            raise Overloaded from None
        finally:
            self.waiting -= 1
        try:
            slot = min(self._free, key=lambda slot: (len(slot.evaluated) - 2 * slot.shared(ids), slot.used))
            self._free.remove(slot)
            self._served += 1
            slot.used = self._served
            try:
                yield slot
            finally:
                self._free.append(slot)
        finally:
            self._gate.release()
