"""One TOML file → one validated `Config`. Every field says what it does; an unknown key is an error.

`claude-trainer train --help`, docs/configuration.md and the commented files in configs/ are read from here.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from trainer.errors import TrainerError


class Section(BaseModel):
    """Base of every section: unknown keys are rejected, values cannot be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TeacherRights(Section):
    """One declaration that a teacher's outputs may be learned from."""

    match: str = Field(description="Glob over the teacher's model id, e.g. 'glm-*'")
    basis: str = Field(min_length=3, description="Why it is allowed, e.g. 'licence: MIT'; stored with the dataset")


class DatasetConfig(Section):
    """Traces → training samples."""

    max_tokens: int = Field(default=4096, ge=128, description="Longest sample in tokens; longer ones lose old outputs")
    max_output_chars: int = Field(default=8000, ge=64, description="Longest tool output kept, in characters")
    validation_fraction: float = Field(default=0.0, ge=0, le=0.5, description="Share of families in 'validation'")
    test_fraction: float = Field(default=0.15, ge=0, le=0.5, description="Share of families (newest) in 'test'")
    test_projects: list[str] = Field(
        default_factory=list, description="Globs over the project folder's name: these are always 'test'"
    )
    system_prompt: str = Field(
        default="You are a coding agent. Work in small steps, use the tools, then answer.",
        description="The short system prompt that the student is trained with and served with",
    )
    min_tool_calls: int = Field(default=1, ge=0, description="Traces with fewer calls are left out")
    digest_tokens: int = Field(
        default=256,
        ge=0,
        le=2048,
        description="Longest digest of a session's earlier prompts in the system message of a follow-up prompt, in "
        "tokens of three bytes; the gateway gives the student the same one. 0: none, and the gateway sends the whole "
        "conversation",
    )
    recovery_weight: float = Field(default=1.5, gt=0, description="Loss weight of a turn that mends a mistake")
    answer_weight: float = Field(default=1.0, gt=0, description="Loss weight of the final answer")
    near_duplicate_threshold: float = Field(
        default=1.0,
        ge=0.5,
        le=1,
        description="Leaves out a trace this much alike to an earlier one (Jaccard index of prompt, calls and results, "
        "in any project); 1.0 leaves out exact repeats in one workspace only",
    )
    max_per_family: int = Field(default=0, ge=0, description="Most traces of a session family; 0 sets no limit")
    max_per_project: int = Field(default=0, ge=0, description="Most traces of a project; 0 sets no limit")
    max_per_workflow: int = Field(default=0, ge=0, description="Most traces of a workflow type; 0 sets no limit")
    balance: Literal["none", "sqrt", "uniform"] = Field(
        default="none",
        description="Loss weights of training samples: 'uniform' is 1 / (traces of the type of work × of the project), "
        "'sqrt' its square root; 'none' weighs all alike",
    )
    order: Literal["time", "curriculum", "shuffled"] = Field(
        default="time",
        description="Order of the samples: oldest first, fewest turns and shortest first (SFT then keeps the order), "
        "or drawn by the traces' ids",
    )


class TinyLlama(Section):
    """Shape and first training of the embedded base: a Llama small enough to be made on the spot."""

    vocab_size: int = Field(default=1024, ge=512, description="Tokenizer size, special tokens included")
    hidden_size: int = Field(default=256, multiple_of=256, description="Width; a multiple of 256 so that Q4_K applies")
    intermediate_size: int = Field(default=512, multiple_of=256, description="Width of the feed-forward layer")
    layers: int = Field(default=4, ge=2, description="Number of layers; two at least, for induction")
    heads: int = Field(default=4, ge=1, description="Attention heads")
    kv_heads: int = Field(default=4, ge=1, description="Key/value heads")
    max_positions: int = Field(default=4096, ge=512, description="Longest context in tokens")
    rope_theta: float = Field(default=500_000.0, gt=0, description="RoPE base")
    copy_steps: int = Field(default=300, ge=0, description="Steps of random-segment copying")
    recall_steps: int = Field(default=0, ge=0, description="Steps of key-value recall after them")
    learning_rate: float = Field(default=2e-3, gt=0, description="Peak learning rate of this first training")
    batch_tokens: int = Field(default=1024, ge=256, description="Tokens per step")


class StudentConfig(Section):
    """The model that learns."""

    base_model: str = Field(default="tiny", description="'tiny', a hub id, or a local folder")
    tiny: TinyLlama = Field(default_factory=TinyLlama, description="Used when base_model is 'tiny'")
    seed: int = Field(default=0, description="Seed of everything that is drawn")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Type of the weights in training")
    load_in_4bit: bool = Field(default=False, description="NF4 base weights (QLoRA)")
    attention: Literal["sdpa", "eager", "flash_attention_2", "auto"] = Field(
        default="sdpa",
        description="Attention kernel; 'auto' is FlashAttention 2 where a GPU and its package are, else SDPA",
    )

    @field_validator("base_model")
    @classmethod
    def _home(cls, value: str) -> str:
        return str(Path(value).expanduser()) if value.startswith("~/") else value


class SftConfig(Section):
    """Supervised fine-tuning on the teacher's turns."""

    lora_r: int = Field(default=16, ge=1, description="Rank of the adapter")
    lora_alpha: int = Field(default=32, ge=1, description="Scale of the adapter: alpha / r")
    lora_dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout inside the adapter")
    train_embeddings: bool = Field(
        default=False, description="Train embeddings and output layer in full; the tiny base needs it"
    )
    learning_rate: float = Field(default=2e-4, gt=0, description="Peak learning rate")
    epochs: float = Field(default=3.0, gt=0, description="Passes over the training split")
    renamed_copies: int = Field(
        default=0, ge=0, description="Further copies of each sample with names and numbers exchanged"
    )
    max_steps: int = Field(default=-1, description="Stops earlier where positive")
    batch_size: int = Field(default=1, ge=1, description="Samples per device and step")
    gradient_accumulation: int = Field(default=1, ge=1, description="Steps summed before an update")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW weight decay")
    adam_beta2: float = Field(default=0.999, gt=0, lt=1, description="AdamW second-moment decay")
    warmup_fraction: float = Field(default=0.03, ge=0, lt=1, description="Share of steps with rising learning rate")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradient clipping")
    context_weight: float = Field(
        default=0.0, ge=0, description="Loss weight of tokens the student does not write; 0 is assistant-only loss"
    )
    optimizer: str = Field(default="adamw_torch", description="Optimizer name of transformers")
    bf16: bool = Field(default=True, description="bfloat16 autocast")
    gradient_checkpointing: bool = Field(default=False, description="Trade time for memory")
    packing: bool = Field(
        default=False,
        description="Fill rows of dataset.max_tokens with whole samples, without padding; none sees another. "
        "batch_size then counts rows",
    )
    liger_kernels: bool = Field(
        default=False, description="Liger's fused layers on a GPU, where the package liger-kernel is installed"
    )
    sample_steps: int = Field(
        default=0, ge=0, description="Steps between looks at what the student writes; 0: ten times in a run"
    )
    save_steps: int = Field(default=200, ge=1, description="Steps between checkpoints")
    logging_steps: int = Field(default=10, ge=1, description="Steps between metric lines")


class RewardConfig(Section):
    """Weights of the five components; they are renormalised over those that apply."""

    constraints: float = Field(default=0.25, ge=0, description="Weight of constraint detection")
    tool_use: float = Field(default=0.30, ge=0, description="Weight of tool use alignment")
    self_correction: float = Field(default=0.15, ge=0, description="Weight of self-correction")
    outcome: float = Field(default=0.20, ge=0, description="Weight of outcome equivalence")
    depth: float = Field(default=0.10, ge=0, description="Weight of reasoning depth")


class PpoConfig(Section):
    """Proximal policy optimisation against the behavioural reward."""

    iterations: int = Field(
        default=1, ge=1, description="Versions that `train` makes: PPO, gate, mine, PPO with what was mined …"
    )
    updates: int = Field(default=20, ge=0, description="Policy updates")
    episodes_per_update: int = Field(default=16, ge=1, description="Rollouts per update")
    episodes_per_prompt: int = Field(
        default=1,
        ge=1,
        description="Rollouts of each prompt of an update; from 2 on, what the others earned is the baseline of each",
    )
    epochs: int = Field(default=2, ge=1, description="Passes over the rollouts of an update")
    minibatch_size: int = Field(default=8, ge=1, description="Episodes per gradient step")
    gradient_accumulation: int = Field(default=1, ge=1, description="Micro-batches that a gradient step is made of")
    learning_rate: float = Field(default=1e-4, gt=0, description="Learning rate of the policy")
    value_learning_rate: float = Field(default=1e-3, gt=0, description="Learning rate of the value head")
    value_warmup: int = Field(default=2, ge=0, description="First updates that train the value head alone")
    gamma: float = Field(default=1.0, gt=0, le=1, description="Discount per turn")
    lam: float = Field(default=0.95, ge=0, le=1, description="GAE λ")
    clip: float = Field(default=0.2, gt=0, lt=1, description="Clip range of the probability ratio")
    value_epochs: int = Field(default=20, ge=1, description="Passes of the value head over an update's hidden states")
    kl_coefficient: float = Field(default=0.05, ge=0, description="Weight of the per-token KL to the SFT student")
    kl_control: Literal["fixed", "adaptive"] = Field(
        default="fixed", description="'adaptive' moves kl_coefficient until the KL is kl_goal"
    )
    kl_goal: float = Field(default=5.0, gt=0, description="KL that the adaptive control steers to, in nats per episode")
    target_kl: float = Field(default=0.02, gt=0, description="approx-KL that ends the epochs of an update")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradient clipping")
    temperature: float = Field(default=1.0, gt=0, description="Sampling temperature of rollouts")
    mode: Literal["step", "semi_online"] = Field(
        default="semi_online", description="See trainer/ppo/replay_environment"
    )
    max_turns: int = Field(default=12, ge=1, description="Longest episode in assistant turns")
    max_new_tokens: int = Field(default=256, ge=8, description="Longest assistant turn in tokens")
    generation_server: str = Field(
        default="",
        description="URL of a vLLM server that writes the episodes of training; without it the model itself does",
    )
    episodes_at_once: int = Field(
        default=64, ge=1, description="Episodes that are written together: what their keys and values take in memory"
    )
    window: int | None = Field(
        default=None, ge=64, description="Longest episode in tokens; without it, as many as the model has positions"
    )
    patch_penalty: float = Field(default=0.1, ge=0, description="Reward lost per call that the replay had to patch")
    max_patches: int = Field(default=2, ge=0, description="Most calls that are patched before an episode stops")
    bf16: bool = Field(default=True, description="bfloat16 autocast in forward and backward passes")
    gradient_checkpointing: bool = Field(
        default=False, description="Compute activations again in the backward pass: a third slower, far less memory"
    )
    checkpoint_every: int = Field(default=50, ge=1, description="Updates between checkpoints")
    eval_every: int = Field(default=10, ge=1, description="Updates between scores on the validation prompts")
    eval_prompts: int = Field(default=50, ge=1, description="Prompts of such a score")
    runaway_kl: float = Field(default=20.0, gt=0, description="Run-away: KL in nats per episode above this")
    runaway_length: float = Field(
        default=2.0, gt=1, description="Run-away: written tokens per episode above this many times those at the start"
    )
    runaway_malformed: float = Field(
        default=0.3, gt=0, le=1, description="Run-away: share of malformed episodes this far above that at the start"
    )
    runaway_gap: float = Field(
        default=0.3,
        gt=0,
        le=2,
        description="Run-away: reward, as a share, has gained this much more than outcome checks",
    )
    runaway_patience: int = Field(default=2, ge=1, description="Updates in a row that a limit may be exceeded")
    runaway_returns: int = Field(
        default=2, ge=0, description="Returns to the best student, with half the learning rate, before PPO ends"
    )

    @model_validator(mode="after")
    def _whole_groups(self) -> PpoConfig:
        if self.episodes_per_update % self.episodes_per_prompt:
            raise ValueError(
                f"episodes_per_update ({self.episodes_per_update}) must be a multiple of episodes_per_prompt "
                f"({self.episodes_per_prompt})"
            )
        return self


class TrackingConfig(Section):
    """Where PPO's metrics go beside metrics.jsonl."""

    trackers: list[Literal["tensorboard", "wandb"]] = Field(
        default=[], description="Trackers of accelerate; each needs its own package"
    )
    project: str = Field(default="claude-capture", description="Name of the project there")


class MiningConfig(Section):
    """Which training prompts the next version practises more often."""

    samples: int = Field(default=4, ge=2, description="Episodes per prompt")
    prompts: int = Field(default=200, ge=1, description="Training prompts looked at, evenly spread over the split")
    top: int = Field(default=50, ge=1, description="Prompts that count as chosen")


class GateConfig(Section):
    """What a student must reach on the held-out prompts."""

    reward: float = Field(default=0.80, description="Mean total reward, in [-1, 1]")
    alignment: float = Field(default=0.85, description="Mean tool-use similarity, in [0, 1]")
    constraints: float = Field(default=0.75, description="Mean constraint similarity, in [0, 1]")
    min_prompts: int = Field(default=50, ge=1, description="Fewer held-out prompts make the verdict INCONCLUSIVE")
    regression_tolerance: float = Field(
        default=0.1,
        ge=0,
        le=2,
        description="Loss of mean reward against the version before that a type of work may show",
    )
    min_workflow_prompts: int = Field(
        default=5, ge=2, description="Fewer prompts of a type of work make its comparison INCONCLUSIVE"
    )


class EngineConfig(Section):
    """Who works off chunks of the dataset build and of scoring."""

    name: Literal["local", "ray"] = Field(default="local", description="Processes of this machine, or a Ray cluster")
    ray_address: str = Field(
        default="",
        description="host:port of the Ray cluster's head, a ray:// URL, or 'auto'; without it the variable RAY_ADDRESS",
    )


class ExportConfig(Section):
    """Merged weights → GGUF."""

    quantization: str = Field(default="q4_k_m", description="Type of the second file, as llama.cpp names it")
    float_type: Literal["f16", "bf16"] = Field(default="f16", description="Type of the first file")
    context_length: int = Field(default=4096, ge=256, description="Context written into the GGUF")
    trial_prompts: int = Field(
        default=100, ge=0, description="Held-out prompts that the doctor puts to the quantised file; 0 leaves it out"
    )
    compare_logits: bool = Field(
        default=True, description="Whether the doctor compares logits with the base, which needs its size in memory"
    )


class DeployConfig(Section):
    """A GGUF → a running model server."""

    host: str = Field(default="http://127.0.0.1:11434", description="Ollama; OLLAMA_HOST takes precedence")
    model: str = Field(default="cc-claude-agent", description="Name of the model there")
    num_ctx: int = Field(default=32768, ge=256, description="Context window baked into the model")
    port: int = Field(default=8095, ge=1, le=65535, description="Where llama-server or vLLM listens, on loopback")
    slots: int = Field(default=2, ge=1, description="Conversations that llama-server or vLLM serves side by side")


class EvaluateConfig(Section):
    """The blind test."""

    pairs: int = Field(default=50, ge=1, description="Pairs of teacher and student")
    controls: int = Field(default=5, ge=0, description="Teacher-against-teacher pairs mixed in")
    seed: int = Field(default=0, description="Decides which pairs are drawn; sides are secret")


class TeacherPrice(Section):
    """What a teacher's tokens cost; for the estimate of what the student saved."""

    match: str = Field(description="Glob over the model that Claude Code asked for, e.g. 'claude-sonnet-*'")
    input: float = Field(
        ge=0, description="Price of a million input tokens, in any currency; caching is yours to blend"
    )
    output: float = Field(ge=0, description="Price of a million output tokens")


class RolloutConfig(Section):
    """The gateway and its stages."""

    weights: list[float] = Field(default=[0, 5, 20, 50, 80], description="Share of sessions per stage, in percent")
    days_per_stage: float = Field(default=7, ge=0, description="Shortest stay in a stage")
    min_sessions: int = Field(default=40, ge=1, description="Fewest local sessions before a stage may end")
    promotion: Literal["confirm", "automatic"] = Field(
        default="confirm", description="Whether the next stage waits for a person's `rollout advance`"
    )
    rollback: bool = Field(default=True, description="Give everything back to the teacher when the student fails")
    good_failures: float = Field(
        default=0.02, gt=0, lt=1, description="Share of failed requests that is right; the rollback test's p0"
    )
    max_failures: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Share of failed requests that is wrong; the rollback test's p1, gate's limit",
    )
    max_tool_errors: float = Field(
        default=0.05, ge=0, le=1, description="Gate: share of failed tool calls above the teacher's, as a difference"
    )
    max_pushback: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Gate: share of requests with a rejection or an interrupt above the teacher's",
    )
    min_shadow_reward: float = Field(default=0.5, ge=-1, le=1, description="Gate of 0 %: mean reward in the shadow")
    blind_test: str = Field(
        default="", description="report.json of the blind test that the model passed; wanted for every stage above 0 %"
    )
    blind_verdict: Literal["point", "interval"] = Field(
        default="point", description="'point': share above 45 % and not refuted; 'interval': that claim supported"
    )
    prices: list[TeacherPrice] = Field(default_factory=list, description="Prices of teachers; the first match counts")
    salt: str = Field(default="cc-claude-agent", description="Salt of the session hash")
    teacher_url: str = Field(default="https://api.anthropic.com", description="Upstream of teacher sessions")
    local_url: str = Field(default="http://127.0.0.1:8095", description="Upstream of local sessions")
    student: str = Field(
        default="",
        description="Model of the registry, or GGUF, whose prompt and tools are sent; default: the registry's current",
    )
    local_seconds: float = Field(default=120, gt=0, description="Longest wait for a complete local reply")
    ping_seconds: float = Field(
        default=10, gt=0, description="Silence after which a held stream begins with pings; the status is then 200"
    )
    loop_calls: int = Field(default=3, ge=2, description="The same call with the same result, so often, is a loop")
    breaker_failures: int = Field(default=5, ge=1, description="Local failures in a row that open the circuit breaker")
    breaker_seconds: float = Field(default=30, ge=0, description="Pause until an open breaker lets one request try")
    shadow: bool = Field(default=True, description="At 0 %: score the student in the background")
    shadow_queue: int = Field(default=16, ge=1, description="Turns that may wait for it; more are dropped")
    log_bytes: int = Field(
        default=32_000_000, ge=1, description="Size at which decisions.jsonl and shadow.jsonl move aside"
    )
    log_files: int = Field(default=4, ge=1, description="Files of either log that stay beside the one being written")
    keep_days: float = Field(
        default=90, gt=0, description="How long the figures of single requests are kept; pins and decisions always are"
    )


class DemoConfig(Section):
    """The generated world of `make demo`."""

    train_sessions: int = Field(default=1200, ge=1, description="Recorded sessions for training")
    heldout_sessions: int = Field(default=100, ge=1, description="Recorded sessions with unseen entities")
    seed: int = Field(default=0, description="Seed of workspaces, wording and values")


class Config(Section):
    """Everything a run needs to know."""

    data: str | None = Field(
        default=None,
        description="Data root; without it: CLAUDE_CAPTURE_DATA, the project's own data folder, else the user's",
    )
    runs: str = Field(default="runs", description="Folder of run folders")
    models: str = Field(default="models", description="Folder of GGUF files and the registry")
    teachers: list[TeacherRights] = Field(default_factory=list, description="Whose outputs may be learned from")
    dataset: DatasetConfig = Field(default_factory=DatasetConfig, description="See the section")
    student: StudentConfig = Field(default_factory=StudentConfig, description="See the section")
    sft: SftConfig = Field(default_factory=SftConfig, description="See the section")
    reward: RewardConfig = Field(default_factory=RewardConfig, description="See the section")
    ppo: PpoConfig = Field(default_factory=PpoConfig, description="See the section")
    mining: MiningConfig = Field(default_factory=MiningConfig, description="See the section")
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="See the section")
    gate: GateConfig = Field(default_factory=GateConfig, description="See the section")
    engine: EngineConfig = Field(default_factory=EngineConfig, description="See the section")
    export: ExportConfig = Field(default_factory=ExportConfig, description="See the section")
    deploy: DeployConfig = Field(default_factory=DeployConfig, description="See the section")
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig, description="See the section")
    rollout: RolloutConfig = Field(default_factory=RolloutConfig, description="See the section")
    demo: DemoConfig = Field(default_factory=DemoConfig, description="See the section")


def with_engine(config: Config, name: Literal["local", "ray"] | None) -> Config:
    """The config with another engine; None leaves it as it is."""
    if name is None:
        return config
    return config.model_copy(update={"engine": config.engine.model_copy(update={"name": name})})


def _known_keys(path: tuple[Any, ...]) -> list[str]:
    """Field names of the section at `path`; list indices are skipped."""
    model: type[BaseModel] = Config
    for key in path:
        if isinstance(key, int):
            continue
        annotation = model.model_fields[key].annotation
        arguments = getattr(annotation, "__args__", None)
        model = arguments[0] if arguments else annotation  # type: ignore[assignment]
    return list(model.model_fields)


def _explain(error: ValidationError, path: str) -> str:
    first = error.errors()[0]
    where = [part for part in first["loc"] if not isinstance(part, int)]
    dotted = ".".join(str(part) for part in where)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(where[-1]), _known_keys(first["loc"][:-1]), n=1, cutoff=0)
        hint = f"; did you mean '{'.'.join([*map(str, where[:-1]), *near])}'?" if near else ""
        return f"{path}: unknown key '{dotted}'{hint}"
    return f"{path}: {dotted}: {first['msg']} (found {first['input']!r})"


def parse_config(values: dict[str, Any], source: str = "config") -> Config:
    """Validates plain values.

    Raises:
        TrainerError: an unknown key (with the nearest known one) or a value out of range.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise TrainerError(_explain(error, source)) from None


def load_config(path: Path | str | None) -> Config:
    """Reads a TOML file; None gives the defaults.

    Raises:
        TrainerError: the file is missing, not TOML, or does not validate.
    """
    if path is None:
        return Config()
    file = Path(path)
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise TrainerError(f"{file}: no such config; configs/tiny.toml is a commented example") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainerError(f"{file}: not valid TOML: {error}") from None
    return parse_config(values, str(file))
