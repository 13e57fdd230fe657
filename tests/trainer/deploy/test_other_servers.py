"""What llama-server and vLLM are given: flags that they document, a unit that systemd takes, our template."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from trainer.config import DeployConfig
from trainer.deploy.admission import Candidate
from trainer.deploy.command import deploy as deploy_command
from trainer.deploy.other_servers import for_llama_server, for_vllm, unit_text
from trainer.errors import TrainerError
from trainer.export.export_records import ExportedFile
from trainer.student.chat_format import template_text

DOCUMENTED = """--model --alias --host --port --ctx-size --parallel --jinja --chat-template-file --temp --no-webui"""
"""Flags used, each found in tools/server/README.md of the llama.cpp that llama-cpp-python 0.3.36 ships."""


def test_command_for_llama_server_has_our_template_and_the_whole_window_per_slot(make_gguf: Any) -> None:
    path = make_gguf("one", context=2048)
    files = for_llama_server(Candidate(path), DeployConfig(num_ctx=32768, slots=3, port=9000))
    options = dict(zip(files.command[1::1], [*files.command[2:], ""], strict=True))
    assert (options["--ctx-size"], options["--parallel"], options["--port"]) == (str(3 * 2048), "3", "9000")
    assert Path(options["--chat-template-file"]).read_text() == template_text()
    assert {word for word in files.command if word.startswith("--")} == set(DOCUMENTED.split())
    assert shlex.split(files.line) == files.command


def test_unit_is_one_that_systemd_takes(make_gguf: Any, tmp_path: Path) -> None:
    path = make_gguf("one")
    odd = path.with_name("50% of a $HOME.gguf")
    path.rename(odd)
    files = for_llama_server(Candidate(odd), DeployConfig())
    line = next(row for row in Path(files.unit).read_text().splitlines() if row.startswith("ExecStart="))
    assert '50%% of a $$HOME.gguf"' in line
    verifier = shutil.which("systemd-analyze")
    if verifier is None:
        return
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    sound = unit_text("x", ["/bin/true", *files.command[1:]])
    for text, good in ((sound, True), (sound.replace("--temp 0", '"--temp 0'), False)):
        unit = tmp_path / "x.service"
        unit.write_text(text)
        done = subprocess.run(
            [verifier, "--user", "verify", str(unit)], capture_output=True, text=True, env=environment
        )
        assert ("x.service" not in done.stderr) is good, done.stderr


def test_tampered_file_is_not_made_ready(make_gguf: Any) -> None:
    path = make_gguf("one")
    file = ExportedFile(path=str(path), type="q4_k_m", bytes=path.stat().st_size, sha256="0" * 64, seconds=0.1)
    with pytest.raises(TrainerError, match="changed since it was registered"):
        for_llama_server(Candidate(path, file=file), DeployConfig())


def test_vllm_needs_to_know_what_the_model_was_made_from(make_gguf: Any) -> None:
    with pytest.raises(TrainerError, match="no registry says which base and adapter it was made from"):
        for_vllm(Candidate(make_gguf("one")), DeployConfig())


def test_command_prints_a_line_for_the_shell(make_gguf: Any) -> None:
    path = make_gguf("one")
    arguments = [str(path), "--models", str(path.parent), "--target", "llama-server", "--force", "a test"]
    result = CliRunner().invoke(deploy_command, arguments)
    assert result.exit_code == 0, result.output
    assert shlex.split(result.stdout)[1:3] == ["--model", str(path.resolve())]
    assert "systemctl --user link" in result.stderr
    report = json.loads(CliRunner().invoke(deploy_command, [*arguments, "--json"]).stdout)
    assert report["url"] == "http://127.0.0.1:8095"
