"""The doctor puts the user's held-out prompts to the file: logits, window and behaviour."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest

from trainer.config import Config, ExportConfig, GateConfig
from trainer.errors import TrainerError
from trainer.export.doctor import examine
from trainer.export.export_records import TRIAL_CHECKS, Check, DoctorReport
from trainer.export.gguf_file import GgufFile
from trainer.export.registry import Registry
from trainer.export.release import release
from trainer.export.trial import TEXTS, HeldOut, held_out
from trainer.records import BCSample, GateReport, PromptScore, StudentScores
from trainer.student.episode_trace import trace_of
from trainer.student.episodes import Case

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # inside peft
PASSED = GateReport(passed=True, verdict="PASS", n=3)
FAILED = GateReport(passed=False, verdict="FAIL", n=3)


class KeptConstraints:
    """The reward model on a conversation that states no constraint: as if it had stated one and kept it."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def score(self, student: Any, references: Any) -> Any:
        found = self._model.score(student, references)
        return found.model_copy(update={"components": found.components.model_copy(update={"constraints": 1.0})})


@pytest.fixture
def heldout(exported: Any, database: Any, conversation: tuple[list[Any], list[Any]]) -> HeldOut:
    """Three times the conversation that the model knows by heart, of two kinds of work."""
    messages, tools = conversation
    trace = trace_of(messages, reference=None, student="teacher")
    traces = [trace.model_copy(update={"trace_id": f"t{number}"}) for number in range(3)]
    cases = [
        Case(f"t{number}", (traces[number],), database, workflow_type="database" if number else "conversation")
        for number in range(3)
    ]
    sample = BCSample.model_construct(messages=messages, tools=tools)
    config = Config.model_validate({"gate": {"min_prompts": 2}})
    made = held_out(cases, [sample], config, student=PASSED, export=exported.report)
    return replace(made, reward=KeptConstraints(made.reward))


def checks(report: DoctorReport) -> dict[str, Check]:
    return {check.name: check for check in report.checks}


def test_file_that_works_as_the_student_did_passes(exported: Any, heldout: HeldOut) -> None:
    seen: list[tuple[str, int, int]] = []
    report = examine(exported.quantized, strings_compared=50, heldout=heldout, progress=lambda *step: seen.append(step))
    found = checks(report)
    assert {found[name].status for name in TRIAL_CHECKS} == {"passed"}, report.checks
    assert "f16 against transformers: 100.00% top-1 agreement" in found["logits_plain"].detail
    assert "PASS through llama.cpp over 3 prompts: reward 1.000" in found["behaviour"].detail
    assert seen == [("held-out prompts", n, 3) for n in (1, 2, 3)]
    assert report.trial is not None
    assert {name: score.n for name, score in report.trial.workflows.items()} == {"conversation": 1, "database": 2}
    assert report.trial.parity["quantized"]["argmax_agreement"] > 0.97
    assert DoctorReport.model_validate_json(report.model_dump_json()) == report


def test_quick_asks_few_prompts(heldout: HeldOut) -> None:
    few = replace(heldout, cases=list(heldout.cases) * 30).quick(10)
    assert (len(few.cases), len(few.texts)) == (10, 1)
    assert len(heldout.quick().cases) == 3


def shuffled(source: Path, target: Path, wanted: Callable[[str], bool]) -> Path:
    """A copy in which the rows of some matrices stand in another order: every header field is right."""
    file = GgufFile(source)
    writer = gguf.GGUFWriter(target, "llama")
    for key in file.header_keys():
        value, known = file.get(key), file._reader.get_field(key)
        assert known is not None
        if key == "general.architecture":
            continue
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, known.types[0])
    for tensor in file.tensors:
        data = np.array(tensor.data)
        writer.add_tensor(tensor.name, data[::-1].copy() if wanted(tensor.name) else data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def test_wrong_order_of_q_and_k_shows_in_the_logits_alone(exported: Any, heldout: HeldOut, tmp_path: Path) -> None:
    wrong = shuffled(
        exported.plain, tmp_path / "m.gguf", lambda name: name.endswith(("attn_q.weight", "attn_k.weight"))
    )
    export = exported.report.model_copy(update={"plain": exported.report.plain.model_copy(update={"path": str(wrong)})})
    found = checks(examine(exported.quantized, strings_compared=50, heldout=replace(heldout, export=export)))
    assert found["logits_plain"].status == "failed"
    assert "not the trained ones (merge, q/k order, RoPE)" in found["logits_plain"].advice


@pytest.mark.parametrize(("student", "status"), [(PASSED, "failed"), (None, "failed"), (FAILED, "warning")])
def test_file_that_lost_what_the_student_could_fails(
    exported: Any, heldout: HeldOut, tmp_path: Path, student: GateReport | None, status: str
) -> None:
    wrong = shuffled(exported.quantized, tmp_path / "m.gguf", lambda name: "ffn_down" in name)
    export = exported.report.model_copy(
        update={"quantized": exported.report.quantized.model_copy(update={"path": str(wrong)})}
    )
    report = examine(wrong, strings_compared=50, heldout=replace(heldout, export=export, student=student))
    found = checks(report)
    assert found["logits_quantized"].status == "failed"
    assert "set export.quantization to a larger type" in found["logits_quantized"].advice
    assert found["behaviour"].status == status, found["behaviour"]
    assert found["behaviour"].detail.startswith("FAIL through llama.cpp over 3 prompts")
    assert not report.healthy


def test_type_of_work_that_became_worse_fails_even_where_the_gate_passes(exported: Any, heldout: HeldOut) -> None:
    """The gate's thresholds may be low; less than the trained student earned is still a loss."""
    names = {case.trace_id: case.workflow_type for case in heldout.cases}
    rows = [PromptScore(trace_id=name, workflow_type=kind, total=1.0) for name, kind in names.items()]
    scores = StudentScores(student="m", measured="x", scores=rows)
    low = GateConfig(reward=-1, alignment=0, constraints=0, min_prompts=2, min_workflow_prompts=2)

    class Half(KeptConstraints):
        """Half of what the student earned."""

        def score(self, student: Any, references: Any) -> Any:
            found = super().score(student, references)
            return found.model_copy(update={"total": 0.5})

    poor = replace(heldout, gate=low, scores=scores, reward=Half(heldout.reward), student=None)
    found = checks(examine(exported.quantized, strings_compared=50, heldout=poor))["behaviour"]
    assert found.status == "failed"
    assert found.detail.endswith("database: -0.500 against the trained student")
    fine = replace(heldout, gate=low, scores=scores)
    assert checks(examine(exported.quantized, strings_compared=50, heldout=fine))["behaviour"].status == "passed"


def test_unknown_origin_is_named_as_not_run(exported: Any, heldout: HeldOut) -> None:
    found = checks(examine(exported.plain, strings_compared=50, heldout=replace(heldout, export=None)))
    assert (found["logits_plain"].status, found["behaviour"].status) == ("not run", "passed")
    for gone in ({"base": ""}, {"adapter": str(exported.plain.parent / "cleared-away")}):
        export = exported.report.model_copy(update=gone)
        found = checks(examine(exported.plain, strings_compared=50, heldout=replace(heldout, export=export)))
        assert (found["logits_plain"].status, found["logits_quantized"].status) == ("not run", "passed"), gone


def test_comparison_without_room_is_refused_before_the_work_and_can_be_left_out(
    learned: Path, heldout: HeldOut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=1_000_000))
    config = ExportConfig(context_length=1024)
    wanted = r"learned\d+: comparing .* takes 0\.0 GB of memory, 0\.0 GB are free; .* --no-logits"
    with pytest.raises(TrainerError, match=wanted) as failure:
        release(learned, None, tmp_path / "models", "m", config, gate=PASSED, heldout=heldout)
    assert "\n" not in str(failure.value)
    assert not (tmp_path / "models").exists()
    made = release(learned, None, tmp_path, "m", config, gate=PASSED, heldout=replace(heldout, logits=False))
    assert made.entry is not None
    found = checks(made.doctor)
    assert [found[name].status for name in TRIAL_CHECKS] == ["not run", "not run", "passed", "passed"]


def test_nothing_held_out_is_named_as_not_run(exported: Any, heldout: HeldOut) -> None:
    report = examine(exported.plain, strings_compared=50, heldout=replace(heldout, cases=[]))
    assert {checks(report)[name].status for name in TRIAL_CHECKS} == {"not run"}
    assert "see dataset.test_fraction" in checks(report)["behaviour"].detail


def test_environment_that_breaks_is_a_failed_check_and_no_crash(exported: Any, heldout: HeldOut) -> None:
    def broken() -> Any:
        raise OSError("the workspace is gone")

    cases = [replace(case, make_environment=broken) for case in heldout.cases]
    report = examine(exported.plain, strings_compared=50, heldout=replace(heldout, cases=cases))
    assert report.failures() == ["behaviour: cannot be checked: the workspace is gone"]


def test_release_registers_what_works_and_refuses_what_does_not(
    learned: Path, heldout: HeldOut, tmp_path: Path
) -> None:
    config = ExportConfig(context_length=1024)
    good = release(learned, None, tmp_path, "llama-claude-ppo-v2", config, gate=PASSED, heldout=heldout)
    assert good.entry is not None
    assert good.entry.doctor.trial is not None
    assert Registry(tmp_path).get("llama-claude-ppo-v2").base == str(learned)
    card = (tmp_path / "llama-claude-ppo-v2.md").read_text()
    assert "The q4_k_m file at work in llama.cpp: **PASS** on 3 prompts." in card
    assert json.loads(card.split("model-index: ")[1].split("\n")[0])[0]["results"][0]["metrics"][0]["value"] == 1.0

    other = trace_of([{"role": "user", "content": "x"}], reference=None, student="teacher")
    other = other.model_copy(update={"claude_response": "Something else entirely, without any tool."})
    hard = replace(heldout, cases=[replace(case, references=(other,)) for case in heldout.cases])
    registry = Registry(tmp_path)
    registry.promote("llama-claude-ppo-v2")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    bad = release(learned, None, tmp_path, "llama-claude-ppo-v2", config, gate=PASSED, heldout=hard)
    assert bad.entry is None
    assert bad.doctor.failures()[0].startswith("behaviour: FAIL through llama.cpp")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    registry.verify("llama-claude-ppo-v2")
    refused = Path(bad.export.quantized.path)
    assert (refused.parent, bad.doctor.path) == (tmp_path / "refused", str(refused))
    assert checks(examine(refused, strings_compared=50))["chat_template"].status == "passed"

    again = release(
        learned, None, tmp_path, "llama-claude-ppo-v2", config.model_copy(update={"quantization": "q8_0"}), gate=PASSED
    )
    assert again.entry is not None
    assert registry.verify("llama-claude-ppo-v2").quantized.type == "q8_0"
    assert registry.read().current == "llama-claude-ppo-v2"
    assert not refused.parent.exists()
    assert [path.name for path in tmp_path.glob(".*")] == [".registry.lock"]


def test_window_that_is_too_small_for_the_conversations_fails(learned: Path, heldout: HeldOut, tmp_path: Path) -> None:
    long = replace(heldout, texts=[heldout.texts[0]] * TEXTS + [heldout.texts[0] * 6])
    made = release(learned, None, tmp_path, "m", ExportConfig(context_length=256), gate=PASSED, heldout=long)
    context = checks(made.doctor)["context"]
    assert context.status == "failed"
    assert "set export.context_length to" in context.advice
    with pytest.raises(TrainerError, match="is no model name"):
        release(learned, None, tmp_path, "../m", ExportConfig())
