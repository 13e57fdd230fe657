"""Every pitfall is planted in a healthy file, and the doctor names it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from click.testing import CliRunner

from trainer.errors import TrainerError
from trainer.export.command import doctor as doctor_command
from trainer.export.doctor import examine
from trainer.export.export_records import TRIAL_CHECKS, DoctorReport
from trainer.export.gguf_file import GgufFile

FEW = 60


def planted(
    source: Path,
    target: Path,
    *,
    fields: dict[str, Any] | None = None,
    change: Callable[[str, Any], Any] = lambda _, data: data,
) -> Path:
    """A copy of a GGUF with other header fields (None drops one) and other tensors (None drops one)."""
    file = GgufFile(source)
    wanted = {key: file.get(key) for key in file.header_keys()} | (fields or {})
    writer = gguf.GGUFWriter(target, wanted.pop("general.architecture"))
    for key, value in wanted.items():
        known = file._reader.get_field(key)
        if value is None:
            continue
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            kind = known.types[0] if known is not None else gguf.GGUFValueType.get_type(value)
            writer.add_key_value(key, value, kind)
    for tensor in file.tensors:
        data = change(tensor.name, np.array(tensor.data))
        if data is not None:
            writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def found(report: DoctorReport) -> dict[str, str]:
    return {check.name: check.status for check in report.checks}


def failed(report: DoctorReport) -> set[str]:
    return {name for name, status in found(report).items() if status == "failed"}


def test_exported_files_are_healthy(exported: Any, tokenizer: Any) -> None:
    for path in (exported.plain, exported.quantized):
        report = examine(path, tokenizer=tokenizer, strings_compared=500)
        assert report.healthy, report.failures()
        assert list(found(report)) == [
            "architecture",
            "rope_freqs",
            "output_weight",
            "weights",
            "quantization",
            "pre_tokenizer",
            "control_tokens",
            "eos",
            "eot",
            "eom",
            "provenance",
            "chat_template",
            "template_rendering",
            "loads_and_generates",
            "bos",
            "tokenizer_parity",
            "forged_tokens",
            "served_bytes",
            "template_in_llama_server",
            "logits_plain",
            "logits_quantized",
            "context",
            "behaviour",
        ]
        made = {name: status for name, status in found(report).items() if name not in (*TRIAL_CHECKS, "provenance")}
        made.pop("template_in_llama_server")  # passed or not run: its own test says which
        assert set(made.values()) == {"passed"}
        assert {found(report)[name] for name in TRIAL_CHECKS} == {"not run"}
        assert all("--config" in check.detail for check in report.checks if check.name in TRIAL_CHECKS)
        assert found(report)["provenance"] == "warning"


def test_copy_without_changes_is_healthy(exported: Any, tmp_path: Path) -> None:
    assert examine(planted(exported.plain, tmp_path / "m.gguf"), strings_compared=FEW).healthy


def _nan(name: str, data: Any) -> Any:
    if name == "blk.0.attn_norm.weight":
        data[3] = np.nan
    return data


def _types(path: Path, token: str) -> list[int]:
    file = GgufFile(path)
    tokens, types = file.get("tokenizer.ggml.tokens"), list(file.get("tokenizer.ggml.token_type"))
    types[tokens.index(token)] = 1
    return types


PITFALLS: dict[str, tuple[Callable[[Path], dict[str, Any]], Callable[[str, Any], Any], set[str]]] = {
    "no rope factors": (lambda _: {}, lambda n, d: None if n == "rope_freqs.weight" else d, {"rope_freqs"}),
    "rope factors of a foreign long-context model": (
        lambda _: {"claude_capture.rope_type": None, "llama.context_length": 131072},
        lambda n, d: None if n == "rope_freqs.weight" else d,
        {"rope_freqs"},
    ),
    "other split": (lambda _: {"tokenizer.ggml.pre": "gpt-2"}, lambda n, d: d, {"pre_tokenizer", "tokenizer_parity"}),
    "second BOS": (lambda _: {"tokenizer.ggml.add_bos_token": True}, lambda n, d: d, {"bos"}),
    "BOS left to llama.cpp's default": (lambda _: {"tokenizer.ggml.add_bos_token": None}, lambda n, d: d, {"bos"}),
    "end of text as EOS": (lambda _: {"tokenizer.ggml.eos_token_id": 447}, lambda n, d: d, {"eos"}),
    "no EOT": (lambda _: {"tokenizer.ggml.eot_token_id": None}, lambda n, d: d, {"eot"}),
    "no EOM": (lambda _: {"tokenizer.ggml.eom_token_id": None}, lambda n, d: d, {"eom"}),
    "stock template": (
        lambda _: {"tokenizer.chat_template": "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"},
        lambda n, d: d,
        {"chat_template", "template_rendering"},
    ),
    "template that is not Jinja": (
        lambda _: {"tokenizer.chat_template": "{% if %}"},
        lambda n, d: d,
        {"chat_template", "template_rendering", "loads_and_generates"},
    ),
    "broken weight": (lambda _: {}, _nan, {"weights", "loads_and_generates"}),
    "call token as ordinary text": (
        lambda path: {"tokenizer.ggml.token_type": _types(path, "<|python_tag|>")},
        lambda n, d: d,
        {"control_tokens"},
    ),
    "label of another quantisation": (lambda _: {"general.file_type": 15}, lambda n, d: d, {"quantization"}),
    "lost tensor": (
        lambda _: {},
        lambda n, d: None if n == "blk.1.ffn_up.weight" else d,
        {"architecture", "loads_and_generates"},
    ),
    "lost layer": (lambda _: {"llama.block_count": 3}, lambda n, d: d, {"architecture", "loads_and_generates"}),
}


@pytest.mark.parametrize("name", PITFALLS)
def test_pitfall_is_named(exported: Any, tmp_path: Path, name: str) -> None:
    fields, change, expected = PITFALLS[name]
    path = planted(exported.plain, tmp_path / "m.gguf", fields=fields(exported.plain), change=change)
    report = examine(path, strings_compared=FEW)
    assert not report.healthy
    assert failed(report) == expected, report.failures()
    assert all(check.advice for check in report.checks if check.status == "failed")


def test_tokenizer_of_another_model_is_noticed(exported: Any) -> None:
    from trainer.student.tiny_llama import train_tokenizer

    other = train_tokenizer(["completely other words were merged here"] * 4, 768)
    assert failed(examine(exported.plain, tokenizer=other, strings_compared=FEW)) == {"tokenizer_parity"}


def test_width_that_k_quants_cannot_use_is_a_warning(make_base: Any, tmp_path: Path) -> None:
    from trainer.config import ExportConfig
    from trainer.export.gguf_exporter import export_model

    base = make_base(hidden_size=128, intermediate_size=256, num_attention_heads=2, num_key_value_heads=2)
    report = export_model(base, None, tmp_path, "m", ExportConfig(context_length=512))
    examined = examine(Path(report.quantized.path), strings_compared=FEW)
    assert examined.healthy
    assert found(examined)["quantization"] == "warning"


def test_llama_server_is_asked_where_there_is_one(
    exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.export.llama_server import check_llama_server

    program = shutil.which("llama-server")
    check = check_llama_server(exported.quantized)
    assert check.status == ("passed" if program else "not run"), check
    broken = tmp_path / "llama-server"
    broken.write_text("#!/bin/sh\necho no such GPU >&2; exit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    check = check_llama_server(exported.quantized)
    assert (check.status, check.detail) == ("not run", f"{broken} did not start: no such GPU")


@pytest.mark.parametrize("kept", [0.001, 0.3, 0.9, 0.9999])
def test_cut_file_is_one_line(exported: Any, tmp_path: Path, kept: float) -> None:
    path = tmp_path / "cut.gguf"
    content = exported.quantized.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(TrainerError, match=r"cut\.gguf: the GGUF is (damaged or )?cut off") as failure:
        examine(path)
    assert "\n" not in str(failure.value)


@pytest.mark.slow
def test_tampered_files_never_crash_the_doctor(exported: Any, tmp_path: Path) -> None:
    content = exported.quantized.read_bytes()
    draw = np.random.default_rng(0)
    path = tmp_path / "bad.gguf"
    examined = 0
    for _ in range(12):
        changed = bytearray(content)
        for position in draw.integers(4, 30_000, size=3):
            changed[position] = int(draw.integers(0, 256))
        path.write_bytes(changed)
        with contextlib.suppress(TrainerError):
            examined += len(examine(path, strings_compared=5).checks) > 0
    assert examined > 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.gguf", b"hello", "not a GGUF: it starts with b'hell'"),
        ("empty.gguf", b"", "not a GGUF"),
        ("absent.gguf", None, "no such file"),
    ],
)
def test_file_that_is_no_gguf_is_one_line_and_exit_1(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    import subprocess
    import sys

    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    command = [sys.executable, "-c", "from trainer.cli import main; main()", "doctor", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert done.stdout == ""


def test_tokenizer_that_cannot_be_read_is_one_line_and_no_strings_prove_nothing(exported: Any, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        result = CliRunner().invoke(doctor_command, [str(exported.quantized), "--tokenizer", str(path)])
        assert isinstance(result.exception, TrainerError)
        assert str(result.exception).startswith(f"{tmp_path / 'tokenizer.json'}: cannot be read as a tokenizer (")
    assert CliRunner().invoke(doctor_command, [str(exported.quantized), "--strings", "0"]).exit_code == 2


def test_command_prints_findings_and_exits_1_on_a_failure(exported: Any, tmp_path: Path) -> None:
    good = CliRunner().invoke(doctor_command, [str(exported.quantized), "--strings", "60", "--json"])
    assert good.exit_code == 0
    assert json.loads(good.stdout)["healthy"] is True
    path = planted(exported.plain, tmp_path / "m.gguf", fields={"tokenizer.ggml.add_bos_token": True})
    bad = CliRunner().invoke(doctor_command, [str(path), "--strings", "60"])
    assert bad.exit_code == 1
    assert "FAIL  bos" in bad.stdout
    assert "bos: the template writes the BOS: add_bos_token must be false" in bad.stdout.replace("\n", " ")
