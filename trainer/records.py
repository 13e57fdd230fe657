"""Records that pass between the stages of the trainer. Like every stored record, they keep unknown fields."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from claude_capture.claude_trace_schema import (
    SCHEMA_VERSION,
    ExplorationDepth,
    Record,
    Teacher,
    ToolUse,
    WorkflowType,
)

Split = Literal["train", "validation", "test"]
Message = dict[str, Any]
"""One chat message: `role` (system, user, assistant or tool), `content` (str), and for assistants optionally
`tool_calls` [{"id", "type": "function", "function": {"name", "arguments": dict}}], for tools `tool_call_id`."""


class BCSample(Record):
    """One behavioural-cloning sample: readable fields beside exactly what is trained on."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this schema")
    trace_id: str = Field(description="Trace that the sample was made from")
    window: int = Field(default=0, description="0-based window of the trace, where it needed several")
    prompt: str = Field(description="What the person asked")
    reasoning_chain: list[str] = Field(default_factory=list, description="Quotes of the reasoning steps")
    tool_sequence: list[ToolUse] = Field(default_factory=list, description="Calls with their reasoning")
    response: str = Field(description="Final answer")
    workflow_type: WorkflowType = Field(description="Main aim")
    exploration_depth: ExplorationDepth = Field(description="Look-ups before change or answer")
    messages: list[Message] = Field(description="What is trained on, system message first")
    tools: list[dict[str, Any]] = Field(default_factory=list, description="Short tool schemas offered")
    weights: list[float] = Field(description="Loss weight of each assistant message, in order; 0 masks it")
    split: Split = Field(description="train, validation or test")
    family: str = Field(description="Session family; a family never crosses splits")
    project: str = Field(default="", description="Name of the project folder")
    workspace: str = Field(default="", description="Digest of the project folder's whole path")
    teacher: Teacher = Field(description="Who answered")
    basis: str = Field(description="The declaration that allows learning from this teacher")


class RewardComponents(Record):
    """The five components, each 2s - 1 for a similarity s in [0, 1]; None where it does not apply."""

    constraints: float | None = Field(default=None, description="Constraint detection, in [-1, 1]")
    tool_use: float | None = Field(default=None, description="Tool use alignment, in [-1, 1]")
    self_correction: float | None = Field(default=None, description="Self-correction, in [-1, 1]")
    outcome: float | None = Field(default=None, description="Outcome equivalence, in [-1, 1]")
    depth: float | None = Field(default=None, description="Reasoning depth, in [-1, 1]")


class RewardBreakdown(Record):
    """What a student's episode earned against its references."""

    trace_id: str = Field(description="Trace that was scored")
    total: float = Field(ge=-1, le=1, description="Weighted mean of the components that apply, in [-1, 1]")
    components: RewardComponents = Field(description="See the model")
    explanation: list[str] = Field(default_factory=list, description="One entry for each lost point")
    exact_sequence: bool = Field(default=False, description="Same calls, same arguments, same order as a reference")
    diagnostics: dict[str, float] = Field(
        default_factory=dict,
        description="Figures beside the reward: exact, in_order, any_order, precision, recall, names",
    )


class GateMeasure(Record):
    """One threshold of the gate and what was measured against it."""

    name: str = Field(description="reward, alignment or constraints")
    threshold: float = Field(description="Wanted")
    mean: float = Field(description="Measured")
    low: float = Field(description="Lower bound of its two-sided 95 % interval")
    high: float = Field(description="Upper bound")
    n: int = Field(description="Prompts to which it applies")
    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE"] = Field(description="Of this threshold alone")
    more_prompts: int | None = Field(default=None, description="About how many more would make it conclusive")


class GateWorkflow(Record):
    """One type of work: what the student earns more or less than the version before, on the same prompts."""

    workflow: str = Field(description="Workflow type")
    n: int = Field(description="Prompts of this type that both were scored on")
    previous: float = Field(description="Mean reward of the version before, in [-1, 1]")
    mean: float = Field(description="Mean reward of the student on the same prompts")
    difference: float = Field(description="Mean of the paired differences, student minus version before, in [-2, 2]")
    low: float = Field(description="Lower bound of its interval; the intervals of all types hold together with 95 %")
    high: float = Field(description="Upper bound")
    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE"] = Field(description="FAIL: this type of work became worse")
    more_prompts: int | None = Field(default=None, description="About how many more would make it conclusive")


class GateReference(Record):
    """Floor or ceiling of the gate's figures."""

    reward: float = Field(description="Mean total, in [-1, 1]")
    alignment: float | None = Field(default=None, description="Mean tool-use similarity, in [0, 1]")
    n: int = Field(description="Prompts (ceiling: teacher runs) behind it")


class GateReport(Record):
    """Verdict of the quality gate on the held-out prompts."""

    passed: bool = Field(description="True only where the verdict is PASS")
    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE"] = Field(description="Judged on the lower confidence bound")
    reasons: list[str] = Field(default_factory=list, description="One line per threshold")
    n: int = Field(description="Held-out prompts scored")
    measures: list[GateMeasure] = Field(default_factory=list, description="The same in figures")
    student: str | None = Field(default=None, description="Who was judged, e.g. llama-claude-ppo-v2")
    previous: str | None = Field(default=None, description="Version that it was compared with; None: with none")
    tolerance: float | None = Field(default=None, description="Loss of mean reward that a type of work may show")
    workflows: list[GateWorkflow] = Field(default_factory=list, description="The comparison per type of work")
    floor: GateReference | None = Field(default=None, description="The best policy that does not read the prompt")
    ceiling: GateReference | None = Field(default=None, description="The teacher against itself; None: no repeats")


class PromptScore(Record):
    """What a student earned on one held-out prompt."""

    trace_id: str = Field(description="Trace behind the prompt")
    workflow_type: str = Field(description="Type of work")
    total: float = Field(description="Reward, in [-1, 1]")


class StudentScores(Record):
    """A student's held-out scores, kept beside its model so that the next version can be compared with it."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this schema")
    student: str = Field(description="Its name, e.g. llama-claude-ppo-v1")
    measured: str = Field(description="Hash of everything that a score depends on beside student and prompt")
    scores: list[PromptScore] = Field(description="One per held-out prompt")


class BaselineScores(Record):
    """What one student earned on the held-out prompts, with one seed of its training or sampling."""

    student: str = Field(description="untrained, sft, best-of-n-oracle, best-of-n-consistent, ppo or grpo")
    seed: int = Field(description="Seed of what was drawn; students without chance have one entry")
    totals: list[float] = Field(description="Reward per prompt, in [-1, 1], prompts in one order for all students")
    alignment: float | None = Field(description="Mean tool-use similarity in [0, 1]; None where it never applies")
    exact_sequences: float = Field(description="Share of episodes with the same calls, arguments and order")
    written_tokens: int = Field(description="Tokens that the student wrote in training; 0 without training by reward")
    left_out: list[str] = Field(
        default_factory=list, description="Training prompts that do not fit the window, by trace id"
    )


class Gain(Record):
    """How much more one student earns than another on the same prompts, averaged over seeds."""

    over: str = Field(description="The other student")
    mean: float = Field(description="Mean of the paired differences, in [-2, 2]")
    low: float = Field(description="Lower bound of the 95 % interval over prompts")
    high: float = Field(description="Upper bound")
    seeds: list[float] = Field(description="The mean difference of each seed")
    seeds_low: float | None = Field(description="Lower bound of the 95 % interval over seeds; None for fewer than two")
    seeds_high: float | None = Field(description="Upper bound")
    both_low: float | None = Field(
        default=None, description="Lower bound of the 95 % interval over seeds and prompts at once; None for one seed"
    )
    both_high: float | None = Field(default=None, description="Upper bound")


class BaselineRow(Record):
    """One line of the table."""

    student: str = Field(description="As in BaselineScores")
    reward: float = Field(description="Mean total over prompts and seeds, in [-1, 1]")
    low: float = Field(description="Lower bound of its 95 % interval over prompts")
    high: float = Field(description="Upper bound")
    alignment: float | None = Field(description="Mean tool-use similarity in [0, 1]")
    exact_sequences: float = Field(description="Share of episodes with the same calls, arguments and order")
    seeds: int = Field(description="Seeds behind it")
    written_tokens: int = Field(description="Tokens written in training, mean over seeds")
    left_out: list[str] = Field(default_factory=list, description="As in BaselineScores, of all seeds")
    gain: Gain | None = Field(description="Over the SFT student; None for that one itself")


class BaselineReport(Record):
    """PPO beside what else could have been done with the same student and reward."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this schema")
    prompts: int = Field(description="Held-out prompts")
    samples: int = Field(description="n of best of n")
    seeds: list[int] = Field(description="Seeds of what was scored")
    rows: list[BaselineRow] = Field(description="One per student")
    contrasts: list[Gain] = Field(description="PPO against each other student that could be served")
    earned: bool | None = Field(description="Whether PPO earns its place; None where that is open or it was not run")
    sentence: str = Field(description="The same in words")


def similarity(component: float) -> float:
    """The similarity s in [0, 1] behind a component 2s - 1."""
    return (component + 1) / 2


def component(similarity: float) -> float:
    """The component 2s - 1 in [-1, 1] of a similarity s in [0, 1]."""
    return 2 * similarity - 1
