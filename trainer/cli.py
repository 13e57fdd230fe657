"""`claude-trainer`: each command lives in its stage's `command.py` and is imported only when it is called."""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from typing import Any

import click

COMMANDS = {
    "demo": ("trainer.demo.command:demo", "The whole road on the embedded default."),
    "train": ("trainer.command:train", "dataset → sft → ppo → gate → export, resumable."),
    "preflight": ("trainer.preflight_command:preflight", "What a run needs, and whether it is here."),
    "dataset": ("trainer.dataset.command:dataset", "Traces → training samples: build, audit, export, pairs."),
    "sft": ("trainer.sft.command:sft", "Supervised fine-tuning on the teacher's turns."),
    "ppo": ("trainer.ppo.command:ppo", "PPO against the behavioural reward."),
    "mine": ("trainer.ppo.command:mine", "Find training prompts where the student diverges."),
    "gate": ("trainer.ppo.command:gate", "Judge a student on the held-out prompts."),
    "baselines": ("trainer.baselines.command:baselines", "PPO beside untrained, SFT, best of n and GRPO."),
    "runs": ("trainer.runs_command:runs", "Run folders: list, compare."),
    "reward": ("trainer.reward.command:reward", "Score student traces against teacher traces."),
    "export": ("trainer.export.command:export", "Adapter → merged GGUF, plain and quantised."),
    "doctor": ("trainer.export.command:doctor", "Check a GGUF for known pitfalls."),
    "models": ("trainer.export.models_command:models", "The registry: list, show, compare, promote, rollback, gc."),
    "serve": ("trainer.serve.command:serve", "Serve a GGUF to Claude Code by itself."),
    "deploy": ("trainer.deploy.command:deploy", "Put a GGUF into Ollama."),
    "rollback": ("trainer.deploy.command:rollback", "Return Ollama to an earlier version."),
    "blind-test": ("trainer.evaluate.command:blind_test", "Prove how close the student came: create, serve, report."),
    "rollout": ("trainer.rollout.command:rollout", "The gateway and its stages: serve, status, advance, abort."),
}

SHARED = ("sft", "ppo")
"""What several processes can work on together."""


class LazyGroup(click.Group):
    """A group whose commands are imported on use, so that `--help` stays fast and torch stays away."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of a known error.")
@click.version_option(package_name="claude-capture")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Traces of a coding agent → a local Llama that works the same way."""
    from trainer.errors import TrainerError
    from trainer.processes import process_count

    context.ensure_object(dict)["debug"] = debug
    if process_count() > 1 and context.invoked_subcommand not in SHARED:
        raise TrainerError(
            f"{context.invoked_subcommand}: runs in one process; `accelerate launch` is for {' and '.join(SHARED)}"
        )


def main(arguments: list[str] | None = None) -> Any:
    """Runs the CLI: a known error is one line on stderr and exit status 1; wrong usage is 2."""
    from claude_capture.errors import CaptureError
    from trainer.errors import TrainerError

    values = sys.argv[1:] if arguments is None else arguments
    if "--debug" not in values:  # what libraries say to each other's authors
        warnings.simplefilter("ignore", FutureWarning)
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        return cli.main(args=values, prog_name="claude-trainer", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        print("claude-trainer: interrupted", file=sys.stderr)
        sys.exit(130)
    except (TrainerError, CaptureError, OSError) as error:
        if "--debug" in values:
            raise
        print(f"claude-trainer: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
