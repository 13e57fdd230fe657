"""A recorded session played back to a student: its calls are answered from what the teacher's calls returned.

Two modes (facts: UI-S1, arXiv 2509.11543, and SWiRL, arXiv 2504.04736):

`step`         The conversation as recorded up to one turn; the student writes that turn and the episode ends.
`semi_online`  The student starts from the prompt and its own turns stay. Each call is resolved by the first rule that
               applies; the ledger counts which:
               recorded  a recorded call is the same (similarity ≥ threshold): its output.
               cached    the student made the same call before, with no write in between: the output of then.
               error     malformed, unknown tool or wrong arguments: the error Claude Code would give.
               patched   the teacher's next call is carried out instead: its output, at a penalty, at most K times.
               stopped   nothing is left to serve: the episode ends.

Which calls are the same, and which may change places, is the reward model's judgement (trainer/reward): a recorded
call is served only when no change recorded before it, of something that it touches, is still to come; once a change
is served, earlier calls that saw the old state are gone. Above 30 % patched calls a score says little about the
student: `Coverage.reliable` is then False.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from claude_capture.claude_trace_schema import ReasoningSignals, ToolCall, Trace
from trainer.errors import TrainerError
from trainer.ppo.tool_errors import invalid_call, unreadable_call
from trainer.records import BCSample, Message
from trainer.reward.behaviour import Behaviour, CallView, in_conflict
from trainer.reward.tool_arguments import call_similarity
from trainer.student.chat_format import ParsedTurn
from trainer.student.episode_trace import trace_of

Mode = Literal["step", "semi_online"]
LARGEST_PATCHED_SHARE = 0.3


@dataclass
class Coverage:
    """How the calls of an episode (or of many, added up) were answered."""

    recorded: int = 0
    cached: int = 0
    patched: int = 0
    stopped: int = 0
    error: int = 0

    def __add__(self, other: Coverage) -> Coverage:
        return Coverage(**{name: count + getattr(other, name) for name, count in asdict(self).items()})

    @property
    def calls(self) -> int:
        """All calls that the student made, malformed ones included."""
        return sum(asdict(self).values())

    def shares(self) -> dict[str, float]:
        """Share of each kind of answer; all 0 where no call was made."""
        return {name: count / max(1, self.calls) for name, count in asdict(self).items()}

    @property
    def reliable(self) -> bool:
        """False where so many calls were patched that a score would judge the teacher instead."""
        return self.shares()["patched"] <= LARGEST_PATCHED_SHARE


def call_view(tool: str, arguments: dict[str, Any]) -> CallView:
    """A call that has just been made, as the reward model sees it."""
    call = ToolCall(id="", tool=tool, input=arguments)
    signals = ReasoningSignals(tool_sequence=[tool])
    return Behaviour(
        Trace(trace_id="", session_id="", user_prompt="", tool_calls=[call], reasoning_signals=signals)
    ).calls[0]


def _changes(call: CallView) -> bool:
    """Whether it may have changed the world; what failed has not, so a student may leave that attempt out."""
    return call.writes is not None and not call.failed and not call.denied


class ReplayEnvironment:
    """Answers a student from one recorded conversation. One instance is one episode.

    It is made from a sample alone: `messages` and `tools` are exactly what the student was trained on (short prompt,
    relative paths, shortened outputs). The trace behind the sample is what the episode is scored against.

    Args:
        sample: the recorded conversation.
        mode: see the module.
        turn: for `step`: which of the assistant's turns the student writes, from 0.
        threshold: least similarity at which a call counts as a recorded one.
        max_patches: most calls that are patched before the episode stops.
        patch_penalty: what each patched call costs, on the scale of the reward.

    Raises:
        TrainerError: the sample has no such turn.
    """

    def __init__(
        self,
        sample: BCSample,
        *,
        mode: Mode = "semi_online",
        turn: int = 0,
        threshold: float = 0.95,
        max_patches: int = 2,
        patch_penalty: float = 0.1,
    ) -> None:
        turns = [index for index, message in enumerate(sample.messages) if message["role"] == "assistant"]
        if mode == "step" and not 0 <= turn < len(turns):
            raise TrainerError(f"sample {sample.trace_id} has {len(turns)} assistant turns, there is no turn {turn}")
        first = turns[turn] if mode == "step" else next(iter(turns), len(sample.messages))
        self.tools = sample.tools
        self.coverage = Coverage()
        self.penalties: list[float] = []
        """One per turn of the student so far."""
        self._opening = sample.messages[:first]
        self._mode = mode
        self._threshold = threshold
        self._max_patches = max_patches
        self._patch_penalty = patch_penalty
        trace = trace_of(sample.messages, reference=None, student="")
        self._waiting = [call for call in Behaviour(trace).calls if call.record.output is not None]
        self._cache: list[tuple[CallView, str]] = []

    def reset(self) -> list[Message]:
        """The opening messages; in `step` mode everything before the turn in question."""
        return list(self._opening)

    def step(self, turn: ParsedTurn) -> list[Message] | None:
        """The results of the turn's calls, malformed ones last; None where the episode is over."""
        self.penalties.append(0.0)
        calls = turn.message.get("tool_calls") or []
        if self._mode == "step" or not (calls or turn.malformed):
            return None
        results: list[Message] = []
        for call in calls:
            output = self._resolve(call["function"]["name"], call["function"]["arguments"])
            if output is None:
                return None
            results.append({"role": "tool", "content": output, "tool_call_id": call["id"]})
        for text in turn.malformed:
            self.coverage.error += 1
            results.append({"role": "tool", "content": unreadable_call(text)})
        return results

    def _resolve(self, tool: str, arguments: dict[str, Any]) -> str | None:
        call = call_view(tool, arguments)
        match, error = self._match(call), invalid_call(tool, arguments, self.tools)
        if match is not None and (error is None or match.key == call.key):
            self.coverage.recorded += 1
            return self._serve(match, call)
        cached = next((output for known, output in self._cache if known.key == call.key), None)
        if cached is not None:
            self.coverage.cached += 1
            return cached
        if error is not None:
            self.coverage.error += 1
            return error
        if not self._waiting or self.coverage.patched >= self._max_patches:
            self.coverage.stopped += 1
            return None
        self.coverage.patched += 1
        self.penalties[-1] += self._patch_penalty
        return self._serve(self._waiting[0], call)

    def _match(self, call: CallView) -> CallView | None:
        """The most similar recorded call that could run now; the earliest of equals."""
        best, best_similarity = None, 0.0
        for position, recorded in enumerate(self._waiting):
            similarity = call_similarity(call, recorded)
            if similarity < self._threshold or similarity <= best_similarity:
                continue
            if not any(_changes(earlier) and in_conflict(earlier, recorded) for earlier in self._waiting[:position]):
                best, best_similarity = recorded, similarity
        return best

    def _serve(self, recorded: CallView, call: CallView) -> str:
        self._waiting.remove(recorded)
        if _changes(recorded):  # what was seen before this change, and what could still have been seen, is history
            self._cache = [(known, output) for known, output in self._cache if not in_conflict(recorded, known)]
            self._waiting = [c for c in self._waiting if c.index > recorded.index or not in_conflict(recorded, c)]
        output = recorded.record.output or ""
        self._cache.append((call, output))
        return output
