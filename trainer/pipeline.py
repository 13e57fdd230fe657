"""The one file that knows the order of the stages: dataset → sft → ppo → held-out scores → gate → export.

Each stage reads what the one before left on disk and writes a run folder named by the hash of everything that went
in. Training whose run folder is complete is not run again; one that was interrupted goes on where it stopped. Building
the dataset, scoring and exporting take seconds and are done anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from claude_capture.claude_trace_schema import Trace
from claude_capture.trace_storage import TraceStore
from trainer.config import Config
from trainer.errors import TrainerError
from trainer.records import BCSample, GateReport
from trainer.run_folder import RunFolder, content_hash, write_atomic
from trainer.terminal import Stages

if TYPE_CHECKING:
    from trainer.dataset.dataset_report import DatasetReport
    from trainer.export.parity import ExportParity
    from trainer.export.release import ReleaseReport
    from trainer.ppo.adversarial_prompt_miner import Mined
    from trainer.ppo.heldout import Heldout
    from trainer.ppo.replay_environment import Mode
    from trainer.student.episodes import Case, Environment

LiveEnvironments = Callable[[Trace], "Callable[[], Environment] | None"]
"""Gives what makes a fresh workspace with real tools for a trace's prompt, or None: then the trace is replayed."""

STUDENTS = ("untrained", "sft", "ppo")


class Road:
    """The way from traces to a model, on one config and one data root."""

    def __init__(
        self, config: Config, data: Path, stages: Stages | None = None, live: LiveEnvironments | None = None
    ) -> None:
        self.config = config
        self.data = data
        self.stages = stages or Stages()
        self.live = live
        self.runs = Path(config.runs)
        self.models = Path(config.models)
        self.dataset_file = data / "datasets" / "bc_dataset.jsonl"
        self._samples: list[BCSample] | None = None
        self._traces: list[Trace] | None = None

    # What the stages leave on disk

    @property
    def traces(self) -> list[Trace]:
        """All recorded traces, the newest version of each."""
        if self._traces is None:
            self._traces = TraceStore.of(self.data).load()
        return self._traces

    @property
    def samples(self) -> list[BCSample]:
        """The dataset; built first where there is none."""
        if self._samples is None:
            from trainer.dataset import read_dataset

            if not self.dataset_file.exists():
                self.dataset()
            self._samples = read_dataset(self.dataset_file)
        return self._samples

    def split(self, name: str) -> list[BCSample]:
        """The samples of one split."""
        return [sample for sample in self.samples if sample.split == name]

    def base(self) -> str:
        """Folder or hub id of the base; the tiny one is made on first use."""
        from trainer.student.base_model import resolve_base
        from trainer.student.chat_format import render

        texts = [render(sample.messages, sample.tools) for sample in self.split("train")]
        return resolve_base(self.config.student, texts)

    def _run(self, stage: str, *parts: Any) -> RunFolder:
        return RunFolder(self.runs, f"{stage}-{content_hash(self.dataset_file, *parts)}", self.config)

    def _sft_run(self) -> RunFolder:
        _ = self.samples
        return self._run("sft", self.config.student, self.config.sft)

    def _ppo_run(self, mined: Path | None = None) -> RunFolder:
        config = self.config
        practised = [mined] if mined is not None else []
        return self._run("ppo", config.student, config.sft, config.ppo, config.reward, *practised)

    # The stages

    def dataset(self) -> DatasetReport:
        """Traces → bc_dataset.jsonl."""
        from trainer.dataset.behavioral_cloning_builder import build_dataset
        from trainer.dataset.chunk_tasks import available_cores
        from trainer.dataset.windows import CountTokens, count_with, estimate_tokens

        with self.stages.stage("dataset") as stage:
            count_tokens: CountTokens = estimate_tokens
            if self.config.student.base_model != "tiny":  # the tiny tokenizer is made from the dataset, not before it
                from trainer.student.base_model import load_tokenizer, resolve_base

                count_tokens = count_with(load_tokenizer(resolve_base(self.config.student)))
            report = build_dataset(
                TraceStore.of(self.data).path,
                self.config,
                self.dataset_file,
                count_tokens=count_tokens,
                workers=available_cores(),
                progress=lambda name, done, total: stage.progress(done, total, name),
            )
            self._samples = None
            stage.went_in = f"{report.traces} traces"
            stage.came_out = ", ".join(f"{facts.samples} {name}" for name, facts in report.splits.items())
            if lost := report.traces - report.used:
                stage.came_out += f"; {lost} traces left out, see {self.dataset_file.with_name('README.md')}"
        return report

    def make_base(self) -> str:
        """The base, as a stage of its own: the tiny one takes a minute when it is first made."""
        from trainer.student.base_model import resolve_base
        from trainer.student.chat_format import render

        _ = self.samples
        with self.stages.stage("base") as stage:
            texts = [render(sample.messages, sample.tools) for sample in self.split("train")]
            base = resolve_base(
                self.config.student, texts, lambda n, total, loss: stage.progress(n, total, f"loss {loss:.3f}")
            )
            stage.went_in, stage.came_out = self.config.student.base_model, Path(base).name
        return base

    def sft(self) -> dict[str, Any]:
        """Training split → adapter; returns the run's result."""
        base = self.make_base()
        samples = self.split("train")
        with self.stages.stage("sft") as stage:
            run = self._sft_run()
            if run.result is None:
                from trainer.sft.sft_trainer import train_sft

                train_sft(
                    samples, base, self.config, run, lambda n, total, loss: stage.progress(n, total, f"loss {loss:.3f}")
                )
                self._sft_report(run, len(samples))
            result = run.result
            if result is None:
                raise TrainerError(f"{run.path}: SFT ended without a result; run the same command again")
            stage.went_in = f"{len(samples)} samples"
            stage.came_out = f"loss {result['loss_first']:.2f} → {result['loss_last']:.3f}, {result['steps']} steps"
        return result

    def ppo(self, mined: Path | None = None) -> dict[str, Any]:
        """SFT student → PPO student; returns the run's result.

        Args:
            mined: mined.jsonl of `mine`: its prompts are practised more often.
        """
        run = self._ppo_run(mined)
        adapter = self._sft_result()["adapter"]
        cases = self.cases("train", self.config.ppo.mode)
        validation = self.cases("validation")[: self.config.ppo.eval_prompts]
        with self.stages.stage("ppo") as stage:
            if run.result is None:
                from trainer.ppo.adversarial_prompt_miner import read_mined, sampling_weights
                from trainer.ppo.ppo_trainer import train_ppo
                from trainer.ppo.report_pages import ppo_page
                from trainer.reward.behavioral_reward_model import BehavioralRewardModel
                from trainer.student.base_model import load_adapted, load_tokenizer

                base = self.base()
                train_ppo(
                    load_adapted(base, self.config.student, adapter, trainable=True),
                    load_tokenizer(base),
                    cases,
                    validation,
                    BehavioralRewardModel(self.config.reward),
                    self.config,
                    run,
                    weights=sampling_weights(cases, read_mined(mined)) if mined is not None else None,
                    progress=lambda n, total, metrics: stage.progress(n, total, f"reward {metrics['reward']:.3f}"),
                )
                ppo_page(run.metrics()).write(run.path / "report.html")
            result = run.result
            if result is None:
                raise TrainerError(f"{run.path}: PPO ended without a result; run the same command again")
            stage.went_in = f"{len(cases)} prompts"
            kept = (
                "the SFT student, none was better" if result["best_update"] == 0 else f"update {result['best_update']}"
            )
            stage.came_out = f"{result['updates']} updates, kept {kept}"
        return result

    def mine(self, student: str, *, samples: int, prompts: int, top: int) -> tuple[Path, Mined]:
        """Ranks training prompts by what a student could learn from them; returns mined.jsonl and what is in it.

        Args:
            samples: episodes per prompt.
            prompts: how many prompts are looked at, evenly spread over the training split.
            top: how many count as chosen.
        """
        from trainer.ppo.adversarial_prompt_miner import mine, read_mined, write_mined
        from trainer.reward.behavioral_reward_model import BehavioralRewardModel
        from trainer.student.base_model import load_adapted, load_tokenizer

        file = self.runs / "mined.jsonl"
        cases = self.cases("train")
        cases = cases[:: max(1, -(-len(cases) // prompts))]
        adapter = self.adapter(student)
        with self.stages.stage("mine") as stage:
            base = self.base()
            found = mine(
                load_adapted(base, self.config.student, adapter),
                load_tokenizer(base),
                cases,
                BehavioralRewardModel(self.config.reward),
                samples=samples,
                max_turns=self.config.ppo.max_turns,
                max_new_tokens=self.config.ppo.max_new_tokens,
                temperature=self.config.ppo.temperature,
                seed=self.config.student.seed,
                top=top,
                previous=read_mined(file) if file.exists() else (),
            )
            write_mined(file, found)
            stage.went_in = f"{len(cases)} prompts × {samples}"
            stage.came_out = f"{sum(prompt.round == found.round for prompt in found.prompts)} worth practising"
        return file, found

    def _sft_result(self) -> dict[str, Any]:
        return self._sft_run().result or self.sft()

    def adapter(self, student: str) -> Path | None:
        """Folder of a student's adapter; None for the untrained one.

        Raises:
            TrainerError: it was not trained yet. Who only wants to judge a student does not train one by accident.
        """
        if student == "untrained":
            return None
        run = self._sft_run() if student == "sft" else self._ppo_run()
        if run.result is None:
            raise TrainerError(
                f"{run.path}: no finished {student} run on this config and dataset; run `claude-trainer {student}` "
                "with the same --config and --data first (the demo's are in its folder's config.toml)"
            )
        return run.path / "adapter"

    def cases(self, split: str, mode: Mode = "semi_online") -> list[Case]:
        """The prompts of a split: live where there is a workspace (held-out prompts only), else replayed."""
        from dataclasses import replace

        from trainer.ppo.cases import cases_from

        cases = cases_from(self.samples, self.traces, self.config, split, mode=mode)  # type: ignore[arg-type]
        if self.live is None or split != "test":
            return cases
        made = ((case, self.live(case.references[0])) for case in cases)
        return [replace(case, make_environment=live) if live is not None else case for case, live in made]

    def heldout(self, student: str) -> Heldout:
        """Lets a student work on every held-out prompt and scores it; traces and scores go to a run folder."""
        from trainer.ppo.heldout import score_cases
        from trainer.reward.behavioral_reward_model import BehavioralRewardModel
        from trainer.student.base_model import load_adapted, load_tokenizer

        cases = self.cases("test")
        if not cases:
            raise TrainerError("no held-out prompts: set dataset.test_fraction or dataset.test_projects")
        adapter = self.adapter(student)
        with self.stages.stage(f"test {student}") as stage:
            base = self.base()
            heldout = score_cases(
                load_adapted(base, self.config.student, adapter),
                load_tokenizer(base),
                cases,
                BehavioralRewardModel(self.config.reward),
                max_turns=self.config.ppo.max_turns,
                max_new_tokens=self.config.ppo.max_new_tokens,
                student=student,
            )
            summary = heldout.summary
            run = self._run(
                f"test-{student}",
                self.config.student,
                self.config.sft,
                self.config.ppo,
                self.config.reward,
                "replayed" if self.live is None else "live",
            )
            lines = (row.trace.model_dump_json() for row in heldout.rows)
            write_atomic(run.path / "traces.jsonl", "".join(f"{line}\n" for line in lines))
            scores = (breakdown.model_dump_json() for breakdown in heldout.breakdowns)
            write_atomic(run.path / "scores.jsonl", "".join(f"{line}\n" for line in scores))
            run.finish(**summary.model_dump())
            stage.went_in = f"{summary.n} prompts"
            stage.came_out = (
                f"reward {summary.reward:.3f} [{summary.ci_low:.3f}, {summary.ci_high:.3f}], "
                f"{summary.exact_sequences:.0%} exact sequences"
            )
        return heldout

    def gate(self, heldout: Heldout) -> GateReport:
        """May this student go on?"""
        from trainer.ppo.quality_gate import judge

        report = judge(heldout.breakdowns, self.config.gate)
        write_atomic(self.runs / "gate.json", report.model_dump_json(indent=1) + "\n", 0o644)
        return report

    def export(
        self, student: str, gate: GateReport | None = None, *, name: str | None = None, parent: str | None = None
    ) -> tuple[ReleaseReport, ExportParity]:
        """Adapter → GGUF files, examined, compared with transformers on held-out prompts, registered.

        A student that passed the gate becomes the registry's current model, which `deploy` takes.

        Args:
            name: model name, e.g. llama-claude-ppo-v2; None takes version 1 of the student's kind.
            parent: registry name of the model that this one continues.
        """
        from trainer.export.parity import export_parity
        from trainer.export.registry import Registry
        from trainer.export.release import provenance_of, release
        from trainer.student.chat_format import render

        if name is None:
            name = "llama-claude-bc-v1" if student == "sft" else "llama-claude-ppo-v1"
        with self.stages.stage("export") as stage:
            base = self.base()
            provenance = provenance_of(
                self.dataset_file,
                self.samples,
                self.config.dataset,
                base_model=self.config.student.base_model,
                parent=parent,
            )
            made = release(
                base, self.adapter(student), self.models, name, self.config.export, provenance=provenance, gate=gate
            )
            if made.entry is None:
                raise TrainerError(
                    f"{made.export.quantized.path}: not registered, the doctor found {made.doctor.failures()[0]}; "
                    f"`claude-trainer doctor {made.export.quantized.path}` says what to do"
                )
            if gate is not None and gate.passed:
                Registry(self.models).promote(name)
            texts = [render(sample.messages, sample.tools) for sample in self.split("test")[:40]]
            parity = export_parity(made.export, texts)
            stage.went_in = f"{student} student"
            stage.came_out = (
                f"f16 {parity.plain.argmax_agreement:.2%}, {self.config.export.quantization} "
                f"{parity.quantized.argmax_agreement:.2%} argmax agreement"
            )
        return made, parity

    def train(self) -> dict[str, Any]:
        """All of it: what `claude-trainer train` does. Returns a summary of plain values."""
        report = self.dataset()
        sft = self.sft()
        self.ppo()
        heldout = {student: self.heldout(student) for student in STUDENTS}
        gate = self.gate(heldout["ppo"])
        made, parity = self.export("ppo", gate)
        summary = {
            "samples": {name: facts.samples for name, facts in report.splits.items()},
            "sft": {"loss_first": sft["loss_first"], "loss_last": sft["loss_last"]},
            "heldout": {student: row.summary.model_dump() for student, row in heldout.items()},
            "gate": {"passed": gate.passed, "verdict": gate.verdict, "reasons": gate.reasons},
            "gguf": {
                "path": made.export.quantized.path,
                "f16_argmax_agreement": parity.plain.argmax_agreement,
                "q4_argmax_agreement": parity.quantized.argmax_agreement,
                "f16_bytes": made.export.plain.bytes,
                "q4_bytes": made.export.quantized.bytes,
            },
            "seconds": self.stages.seconds,
        }
        self._report(heldout, gate, summary)
        return summary

    def _sft_report(self, run: RunFolder, samples: int) -> None:
        """Writes the SFT run's own report.html."""
        from trainer.report.page import Page
        from trainer.report.road_report import loss_figure

        page = Page("Supervised fine-tuning", f"{samples} samples on base {self.config.student.base_model}")
        loss_figure(page, run.metrics())
        page.figures({name: value for name, value in (run.result or {}).items() if name not in ("base", "adapter")})
        page.write(run.path / "report.html")

    def _report(self, heldout: dict[str, Heldout], gate: GateReport, summary: dict[str, Any]) -> None:
        """Writes report.html beside the run folders."""
        from trainer.report.road_report import write_road_report

        write_road_report(
            self.runs / "report.html",
            title=f"From {summary['samples'].get('train', 0)} recorded sessions to a model",
            subtitle=f"base {self.config.student.base_model}, dataset {content_hash(self.dataset_file)}",
            sft_metrics=self._sft_run().metrics(),
            ppo_metrics=self._ppo_run().metrics(),
            scored={student: row.breakdowns for student, row in heldout.items()},
            pairs=[(row.case.references[0], row.trace) for row in heldout["ppo"].rows],
            gate=gate,
            summary=summary,
            stages=[(s.name, s.went_in, s.came_out, s.seconds) for s in self.stages.done],
        )


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Writes a summary as indented JSON, atomically."""
    write_atomic(path, json.dumps(summary, indent=1, ensure_ascii=False) + "\n", 0o644)
