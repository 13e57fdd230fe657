"""TRL's GRPO on the same episodes: same replay environment, same reward, same start, same number of written tokens.

TRL's trainer does what it does by default; only where it has a counterpart of one of PPO's settings is that used too
(learning rate, KL weight, clip range, passes over an update's episodes, temperature). Episodes come from our own
sampler through `rollout_func`, with a mask over what the environment wrote. Each prompt is answered GENERATIONS times
and an episode's advantage is its reward against its group's mean; there is no critic and no reward per turn.

TRL copies the adapter that it is given and keeps the copy as the reference of its KL term: the SFT student, as in PPO.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import Config
from trainer.errors import TrainerError
from trainer.ppo.cases import fitting
from trainer.ppo.rollout_buffer import Reward, collect
from trainer.student.episodes import Case

GENERATIONS = 4
"""Episodes per prompt and update; a divisor of ppo.episodes_per_update."""
MOST_STEPS = 1_000_000


@dataclass(frozen=True)
class GrpoRun:
    """What a run used."""

    written_tokens: int
    left_out: list[str]
    """Prompts that do not fit the window, by trace id."""


def train_grpo(
    model: Any,
    tokenizer: Any,
    cases: Sequence[Case],
    reward: Reward,
    config: Config,
    folder: Path,
    *,
    seed: int,
    budget: int,
    progress: Callable[[int, int], None] | None = None,
) -> GrpoRun:
    """Trains the model's adapter in place until the student has written `budget` tokens.

    Args:
        model: PeftModel with the SFT adapter, trainable.
        cases: prompts of the training split; any other is refused, and one that does not fit the window left out, as
            PPO does.
        folder: where TRL may put its files; nothing there is needed afterwards.
        progress: called after each gradient step with (tokens written, budget).

    Raises:
        TrainerError: a case of another split, episodes_per_update that does not make whole groups, or no case that
            fits.
    """
    if foreign := next((case for case in cases if case.split != "train"), None):
        raise TrainerError(f"GRPO learns from the training split only; case {foreign.trace_id} is of '{foreign.split}'")
    ppo = config.ppo
    batch = min(ppo.minibatch_size, ppo.episodes_per_update)
    steps_per_update = ppo.epochs * (ppo.episodes_per_update // batch)
    if ppo.episodes_per_update % GENERATIONS or ppo.episodes_per_update % batch:
        raise TrainerError(
            f"ppo.episodes_per_update {ppo.episodes_per_update} is not a multiple of {GENERATIONS} and of "
            f"ppo.minibatch_size {ppo.minibatch_size}; the GRPO baseline needs whole groups and minibatches"
        )
    fit, left_out = fitting(cases, tokenizer, model, ppo)
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is announced as experimental on each start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from datasets import Dataset
        from transformers import PrinterCallback, TrainerCallback
        from trl import GRPOConfig, GRPOTrainer

        by_name = {str(number): cases[number] for number in fit}
        spent = 0

        def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
            nonlocal spent
            policy = trainer.accelerator.unwrap_model(trainer.model)
            policy.eval()
            rows = collect(
                policy.get_base_model(),
                tokenizer,
                [by_name[prompt] for prompt in prompts],
                reward,
                ppo,
                temperature=ppo.temperature,
                seed=seed * 2**20 + spent,
                turn_rewards=False,
            ).rollouts
            policy.train()
            spent += sum(len(row.written) for row in rows)
            starts = [row.written[0] if row.written else len(row.episode.ids) - 1 for row in rows]
            pairs = list(zip(rows, starts, strict=True))
            return {
                "prompt_ids": [row.episode.ids[:start] for row, start in pairs],
                "completion_ids": [row.episode.ids[start:] for row, start in pairs],
                "env_mask": [[int(own) for own in row.episode.written[start:]] for row, start in pairs],
                "logprobs": None,  # TRL computes them itself where it needs them
                "episode_reward": [row.breakdown.total for row in rows],
            }

        def earned(completions: list[Any], episode_reward: list[float], **columns: Any) -> list[float]:
            return episode_reward

        class Budget(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                # not before all passes over the last episodes, which PPO makes too
                control.should_training_stop = spent >= budget and state.global_step % steps_per_update == 0
                if progress is not None:
                    progress(min(spent, budget), budget)

        arguments = GRPOConfig(
            output_dir=str(folder),
            max_steps=MOST_STEPS,
            per_device_train_batch_size=batch,
            steps_per_generation=ppo.episodes_per_update // batch,
            num_generations=GENERATIONS,
            num_iterations=ppo.epochs,
            learning_rate=ppo.learning_rate,
            lr_scheduler_type="constant",
            beta=ppo.kl_coefficient,
            epsilon=ppo.clip,
            temperature=ppo.temperature,
            max_grad_norm=ppo.max_grad_norm,
            seed=seed,
            use_cpu=not torch.cuda.is_available(),
            bf16=ppo.bf16,
            gradient_checkpointing=False,
            report_to=[],
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=earned,
            args=arguments,
            train_dataset=Dataset.from_list([{"prompt": name} for name in by_name]),
            processing_class=tokenizer,
            rollout_func=rollout,
            callbacks=[Budget()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    model.eval()
    return GrpoRun(spent, sorted(left_out))
