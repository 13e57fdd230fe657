"""The one file that knows the order of the stages: dataset → sft → ppo → held-out scores → gate → export → mine → ppo …

Each stage reads what the one before left on disk and writes a run folder named by the hash of everything that went
in. Training whose run folder is complete is not run again; one that was interrupted goes on where it stopped. So are
versions that were judged and exported before the last one. Building the dataset, scoring and exporting the last version
are done anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from claude_capture.trace_storage import TraceStore
from trainer.config import Config
from trainer.errors import TrainerError
from trainer.processes import is_main_process, main_process_first, process_count
from trainer.records import BCSample, GateReport, StudentScores
from trainer.road_files import SCORES, LiveEnvironments, RoadFiles
from trainer.run_folder import content_hash, write_atomic
from trainer.student_versions import SFT, UNTRAINED, Student
from trainer.terminal import Stages

if TYPE_CHECKING:
    from trainer.dataset.dataset_report import DatasetReport
    from trainer.export.release import ReleaseReport
    from trainer.ppo.adversarial_prompt_miner import Mined
    from trainer.ppo.heldout import Heldout
    from trainer.ppo.replay_environment import Mode
    from trainer.student.episodes import Case


class Road(RoadFiles):
    """The way from traces to a model, on one config and one data root."""

    def __init__(
        self, config: Config, data: Path, stages: Stages | None = None, live: LiveEnvironments | None = None
    ) -> None:
        super().__init__(config, data, live)
        self.stages = stages or Stages()

    @property
    def samples(self) -> list[BCSample]:
        """The dataset; built first where there is none."""
        if self._samples is None:
            with main_process_first():
                if not self.dataset_file.exists():
                    self.dataset()
        return super().samples

    def base(self, progress: Callable[[int, int, float], None] | None = None) -> str:
        """Folder or hub id of the base; the tiny one is made on first use, told in (step, steps, loss)."""
        from trainer.student.base_model import resolve_base
        from trainer.student.chat_format import render

        texts = [render(sample.messages, sample.tools) for sample in self.split("train")]
        with main_process_first():
            return resolve_base(self.config.student, texts, progress)

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
            self.forget()
            stage.went_in = f"{report.traces} traces"
            stage.came_out = ", ".join(f"{facts.samples} {name}" for name, facts in report.splits.items())
            if lost := report.traces - report.used:
                stage.came_out += f"; {lost} traces left out, see {self.dataset_file.with_name('README.md')}"
        return report

    def make_base(self) -> str:
        """The base, as a stage of its own: the tiny one takes a minute when it is first made."""
        _ = self.samples
        with self.stages.stage("base") as stage:
            base = self.base(lambda n, total, loss: stage.progress(n, total, f"loss {loss:.3f}"))
            stage.went_in, stage.came_out = self.config.student.base_model, Path(base).name
        return base

    def sft(self) -> dict[str, Any]:
        """Training split → adapter; returns the run's result."""
        base = self.make_base()
        samples = self.split("train")
        with self.stages.stage("sft") as stage:
            run = self.versions.run(SFT)
            if run.result is None:
                from trainer.report.road_report import sft_page
                from trainer.sft.sft_trainer import train_sft
                from trainer.sft.student_samples import FILE, read_samples

                def show() -> None:
                    base_name, looks = self.config.student.base_model, read_samples(run.path / FILE)
                    page = sft_page(run.metrics(), run.result or {}, len(samples), base_name, looks)
                    page.write(run.path / "report.html")

                train_sft(
                    samples,
                    base,
                    self.config,
                    run,
                    lambda n, total, loss: stage.progress(n, total, f"loss {loss:.3f}"),
                    looked_at=self.split("validation") or samples,
                    show=show,
                )
                if is_main_process():
                    show()
            result = run.result
            if result is None:
                raise TrainerError(f"{run.path}: SFT ended without a result; run the same command again")
            stage.went_in = f"{len(samples)} samples"
            stage.came_out = f"loss {result['loss_first']:.2f} → {result['loss_last']:.3f}, {result['steps']} steps"
        return result | {"adapter": str(run.output("adapter"))}

    def ppo(self, version: int | None = None, mined: Path | None = None) -> dict[str, Any]:
        """One version of the PPO student from the student before it; returns the run's result.

        Args:
            version: None goes on with the one that was begun, else takes the newest (see `Versions.next_for`). From
                2 on it practises what mining finds with the student before; that is mined now where it was not.
            mined: mined.jsonl of `mine`, practised instead.

        Raises:
            TrainerError: the version before has no finished run, or this one was begun with other prompts.
        """
        versions = self.versions
        student = Student("ppo", version) if version is not None else versions.next_for(mined)
        if not versions.finished(SFT):
            self.sft()
        start = versions.adapter(student.before)
        if mined is not None:
            versions.practise(student, mined)
        elif student.version > 1 and not versions.practised(student).exists():
            if process_count() > 1:
                raise TrainerError(
                    f"{student.slug} practises what mining finds, and mining runs in one process: run `claude-trainer "
                    "mine` first, then this with --mined"
                )
            self._mine_for(student)
        practised = versions.practised(student)
        cases = self.cases("train", self.config.ppo.mode)
        validation = self.cases("validation")[: self.config.ppo.eval_prompts]
        with self.stages.stage(student.slug) as stage:
            run = versions.run(student)
            if run.result is None:
                from trainer.ppo.adversarial_prompt_miner import read_mined, sampling_weights
                from trainer.ppo.live_view import live_view
                from trainer.ppo.ppo_trainer import train_ppo
                from trainer.ppo.report_pages import ppo_page
                from trainer.reward.behavioral_reward_model import BehavioralRewardModel
                from trainer.student.base_checksum import claim_base
                from trainer.student.base_model import load_adapted, load_tokenizer

                base = self.base()
                with main_process_first():
                    claim_base(run.path, base)
                with out_of_memory_in_ppo():
                    train_ppo(
                        load_adapted(base, self.config.student, start, trainable=True),
                        load_tokenizer(base),
                        cases,
                        validation,
                        BehavioralRewardModel(self.config.reward),
                        self.config,
                        run,
                        weights=sampling_weights(cases, read_mined(practised)) if practised.exists() else None,
                        reference=versions.adapter(SFT) if student.version > 1 else None,
                        progress=live_view(stage),
                    )
                if is_main_process():
                    ppo_page(run.metrics()).write(run.path / "report.html")
            result = run.result
            if result is None:
                raise TrainerError(f"{run.path}: PPO ended without a result; run the same command again")
            stage.went_in = f"{len(cases)} prompts from {student.before.slug}"
            kept = f"update {result['best_update']}"
            if result["best_update"] == 0:
                kept = f"the {student.before.slug} student, none was better"
            stage.came_out = f"{result['updates']} updates, kept {kept}"
            if why := result.get("stopped_because"):
                stage.came_out += f"; stopped, {why}"
        return result | {"adapter": str(run.output("adapter")), "student": student.name}

    def mine(
        self, student: Student, file: Path | None = None, *, previous: Path | None = None, **limits: int | None
    ) -> tuple[Path, Mined]:
        """Ranks training prompts by what a student could learn from them; returns the file and what is in it.

        Args:
            file: where to; None is runs/mined.jsonl.
            previous: what was mined before, so that prompts rest and are tested again; None is the file itself.
            limits: `samples`, `prompts` or `top` where they are to differ from the config's [mining].
        """
        from trainer.ppo.adversarial_prompt_miner import looked_at, mine, read_mined, write_mined
        from trainer.reward.behavioral_reward_model import BehavioralRewardModel
        from trainer.student.base_model import load_adapted, load_tokenizer

        file = file or self.runs / "mined.jsonl"
        before = previous or file
        mining = self.config.mining.model_copy(update={k: v for k, v in limits.items() if v is not None})
        known = read_mined(before) if before.exists() else []
        cases = looked_at(self.cases("train"), mining.prompts, known)
        adapter = self.versions.adapter(student)
        with self.stages.stage("mine") as stage:
            base = self.base()
            found = mine(
                load_adapted(base, self.config.student, adapter),
                load_tokenizer(base),
                cases,
                BehavioralRewardModel(self.config.reward),
                self.config.ppo,
                samples=mining.samples,
                seed=self.config.student.seed,
                top=mining.top,
                previous=known,
            )
            write_mined(file, found)
            stage.went_in = f"{len(cases)} prompts × {mining.samples}, {student.slug}"
            stage.came_out = f"{sum(prompt.round == found.round for prompt in found.prompts)} worth practising"
        return file, found

    def _mine_for(self, student: Student) -> None:
        """What a version practises: mined with the student before it, whose own prompts rest for a while."""
        self.versions.run(student)
        self.mine(student.before, self.versions.practised(student), previous=self.versions.practised(student.before))

    def cases(self, split: str, mode: Mode = "semi_online") -> list[Case]:
        """The prompts of a split: live where there is a workspace (held-out prompts only), else replayed."""
        from dataclasses import replace

        from trainer.ppo.cases import cases_from

        cases = cases_from(self.samples, self.traces, self.config, split, mode=mode)  # type: ignore[arg-type]
        if self.live is None or split != "test":
            return cases
        made = ((case, self.live(case.references[0])) for case in cases)
        return [replace(case, make_environment=live) if live is not None else case for case, live in made]

    def heldout(self, student: Student) -> Heldout:
        """Lets a student work on every held-out prompt and scores it; traces and scores go to a run folder."""
        from trainer.ppo.heldout import write_scores

        heldout = self._score(student.slug, self.base(), self.versions.adapter(student))
        run = self.test_run(student)
        lines = (row.trace.model_dump_json() for row in heldout.rows)
        write_atomic(run.path / "traces.jsonl", "".join(f"{line}\n" for line in lines))
        breakdowns = (breakdown.model_dump_json() for breakdown in heldout.breakdowns)
        write_atomic(run.path / "scores.jsonl", "".join(f"{line}\n" for line in breakdowns))
        write_scores(run.path / SCORES, heldout.scores(student.name, self.measured))
        run.finish(**heldout.summary.model_dump())
        return heldout

    def _score(self, name: str, base: str, adapter: Path | None) -> Heldout:
        from trainer.ppo.heldout import score_cases
        from trainer.reward.behavioral_reward_model import BehavioralRewardModel
        from trainer.student.base_model import load_adapted, load_tokenizer

        cases = self.cases("test")
        if not cases:
            raise TrainerError("no held-out prompts: set dataset.test_fraction or dataset.test_projects")
        with self.stages.stage(f"test {name}") as stage:
            heldout = score_cases(
                load_adapted(base, self.config.student, adapter),
                load_tokenizer(base),
                cases,
                BehavioralRewardModel(self.config.reward),
                self.config.ppo,
                student=name,
            )
            summary = heldout.summary
            stage.went_in = f"{summary.n} prompts"
            stage.came_out = (
                f"reward {summary.reward:.3f} [{summary.ci_low:.3f}, {summary.ci_high:.3f}], "
                f"{summary.exact_sequences:.0%} exact sequences"
            )
        return heldout

    def gate(self, student: Student, heldout: Heldout) -> GateReport:
        """May this student go on? gate.json and gate.html go to its run folder, and to `runs` as the newest."""
        from trainer.ppo.quality_gate import judge
        from trainer.ppo.report_pages import write_gate_report
        from trainer.reward.behavioral_reward_model import BehavioralRewardModel
        from trainer.reward.reference_range import reference_range

        report = judge(
            heldout.breakdowns,
            self.config.gate,
            student=student.name,
            workflows=heldout.workflows,
            previous=self._previous(student),
            between=reference_range(heldout.references, BehavioralRewardModel(self.config.reward)),
        )
        untrained = student.kind == "untrained"
        for folder in (self.test_run(student).path if untrained else self.versions.folder(student), self.runs):
            write_gate_report(folder, report, heldout)
        return report

    def _previous(self, student: Student) -> StudentScores | None:
        """Held-out scores of the version that this one is compared with; None for who has none before."""
        from trainer.ppo.heldout import read_scores
        from trainer.previous_version import previous_scores

        if student.kind != "ppo":
            return None
        prompts = {case.trace_id for case in self.cases("test")}
        adapter = self.versions.adapter(student)
        return (
            previous_scores(self.models, student, adapter, self.measured, prompts, self._score)
            or read_scores(self.test_run(SFT).path / SCORES)
            or self.heldout(SFT).scores(SFT.name, self.measured)
        )

    def export(self, student: Student, gate: GateReport | None = None) -> ReleaseReport:
        """Adapter → GGUF files, examined and registered, with the held-out scores beside them.

        A student that passed the gate becomes the registry's current model, which `deploy` takes; SFT's only where
        none is.
        """
        from trainer.export.registry import Registry
        from trainer.export.release import provenance_of, release
        from trainer.export.trial import held_out
        from trainer.ppo.heldout import read_scores
        from trainer.previous_version import keep_scores

        with self.stages.stage(f"export {student.slug}") as stage:
            provenance = provenance_of(
                self.dataset_file,
                self.samples,
                self.config.dataset,
                base_model=self.config.student.base_model,
                parent=student.before.name if student.kind == "ppo" else None,
            )
            scores = read_scores(self.test_run(student).path / SCORES)
            made = release(
                self.base(),
                self.versions.adapter(student),
                self.models,
                student.name,
                self.config.export,
                provenance=provenance,
                gate=gate,
                heldout=held_out(self.cases("test"), self.split("test"), self.config, scores=scores),
            )
            if made.entry is None:
                raise TrainerError(
                    f"{made.export.quantized.path}: not registered, the doctor found {made.doctor.failures()[0]}; "
                    f"`claude-trainer doctor {made.export.quantized.path}` says what to do"
                )
            if scores is not None:
                keep_scores(self.models, scores)
            registry = Registry(self.models)
            if gate is not None and gate.passed and (student.kind == "ppo" or registry.read().current is None):
                registry.promote(student.name)
            stage.went_in = f"{student.slug} student"
            stage.came_out = f"{Path(made.export.quantized.path).name}, {made.export.quantized.bytes / 1e6:,.1f} MB"
            agreement = {kind: made.agreement(kind) for kind in ("plain", "quantized")}
            if found := ", ".join(f"{kind} {share:.2%}" for kind, share in agreement.items() if share is not None):
                stage.came_out += f"; argmax agreement {found}"
        return made

    def train(self, before_training: Callable[[], None] | None = None) -> dict[str, Any]:
        """All of it: what `claude-trainer train` does. Returns a summary of plain values.

        Args:
            before_training: called when the dataset is there.
        """
        from trainer.ppo.heldout import read_heldout
        from trainer.report.baseline_section import read_baselines
        from trainer.report.road_report import write_road_report

        report = self.dataset()
        if before_training is not None:
            before_training()
        sft = self.sft()
        self.heldout(UNTRAINED)
        self._settle(SFT)
        last = Student("ppo", self.config.ppo.iterations)
        for version in range(1, last.version):
            self.ppo(version)
            self._settle(Student("ppo", version))
        self.ppo(last.version)
        heldout = self.heldout(last)
        gate = self.gate(last, heldout)
        made = self.export(last, gate)
        students = {"untrained": UNTRAINED, "sft": SFT}
        students |= {f"ppo-v{version}": Student("ppo", version) for version in range(1, last.version)}
        scored = {name: read_heldout(self.test_run(one).path) for name, one in (students | {"ppo": last}).items()}
        summary: dict[str, Any] = {
            "samples": {name: facts.samples for name, facts in report.splits.items()},
            "sft": {"loss_first": sft["loss_first"], "loss_last": sft["loss_last"]},
            "heldout": {student: row.model_dump() for student, (row, _) in scored.items()},
            "gate": {"passed": gate.passed, "verdict": gate.verdict, "reasons": gate.reasons},
            "gguf": {
                "path": made.export.quantized.path,
                "f16_argmax_agreement": made.agreement("plain"),
                "q4_argmax_agreement": made.agreement("quantized"),
                "f16_bytes": made.export.plain.bytes,
                "q4_bytes": made.export.quantized.bytes,
            },
            "seconds": self.stages.seconds,
        }
        write_road_report(
            self.runs / "report.html",
            title=f"From {summary['samples'].get('train', 0)} recorded sessions to a model",
            subtitle=f"base {self.config.student.base_model}, dataset {content_hash(self.dataset_file)}",
            sft_metrics=self.versions.run(SFT).metrics(),
            ppo_metrics=self.versions.run(last).metrics(),
            scored={student: breakdowns for student, (_, breakdowns) in scored.items()},
            pairs=[(row.case.references[0], row.trace) for row in heldout.rows],
            gate=gate,
            summary=summary,
            stages=[(s.name, s.went_in, s.came_out, s.seconds) for s in self.stages.done],
            baselines=read_baselines(self.baselines_folder()),
        )
        return summary

    def _settle(self, student: Student) -> None:
        """Scores, judges and exports a student, unless all of that was done."""
        from trainer.previous_version import is_exported

        judged = (self.versions.folder(student) / "gate.json").exists() and self.test_run(student).result is not None
        if not (judged and is_exported(self.models, student, self.versions.adapter(student))):
            self.export(student, self.gate(student, self.heldout(student)))


@contextmanager
def out_of_memory_in_ppo() -> Iterator[None]:
    """Says what takes less memory; of the settings named first none makes another run, so this one goes on.

    Raises:
        TrainerError: memory ran out within the block.
    """
    from trainer.sft.batch_plan import is_out_of_memory

    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TrainerError(
            "out of memory in PPO; set ppo.gradient_checkpointing, or lower ppo.episodes_at_once, and run the same "
            "command: it goes on from its last checkpoint. A larger ppo.gradient_accumulation helps too, in another run"
        ) from None


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Writes a summary as indented JSON, atomically."""
    write_atomic(path, json.dumps(summary, indent=1, ensure_ascii=False) + "\n", 0o644)
