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
from trainer.export.model_files import vllm_unit
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
    assert Path(files.unit).name == "50__of_a__HOME.llama-server.service"
    line = next(row for row in Path(files.unit).read_text().splitlines() if row.startswith("ExecStart="))
    assert '50%% of a $$HOME.gguf"' in line
    verifier = shutil.which("systemd-analyze")
    if verifier is None:
        return
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    written = Path(files.unit).read_text()
    sound = written.replace("ExecStart=llama-server", "ExecStart=/bin/true")
    for text, good in (
        (sound, True),
        (sound.replace("--temp 0", '"--temp 0'), False),
        (sound.replace("CacheDirectory=%p", "CacheDirectory=/%p"), False),
        (sound.replace("PrivateUsers=yes", "PrivateUser=yes"), False),
    ):
        unit = tmp_path / "x.service"
        unit.write_text(text)
        done = subprocess.run(
            [verifier, "--user", "verify", str(unit)], capture_output=True, text=True, env=environment
        )
        assert ("x.service" not in done.stderr) is good, done.stderr


def test_unit_may_write_to_a_cache_of_its_own_and_nowhere_else(tmp_path: Path) -> None:
    """Every path that the service is told to write to lies in the folder that systemd makes and leaves writable."""
    text = unit_text("a 100% student", ["/opt/my $HOME/vllm", "serve", "$x"], {"TRITON_CACHE_DIR": "%C/%p/triton"})
    settings = [line.partition("=")[::2] for line in text.splitlines() if "=" in line]
    assert {"PrivateUsers", "ProtectSystem", "PrivateTmp"} <= {key for key, _ in settings}
    assert dict(settings)["CacheDirectory"] == "%p"
    assert dict(settings)["Environment"] == "TRITON_CACHE_DIR=%C/%p/triton"
    assert dict(settings)["ExecStart"] == '"/opt/my $HOME/vllm" serve $$x'
    assert dict(settings)["Description"] == "a 100%% student"


def test_versions_with_a_dot_have_units_of_their_own(tmp_path: Path) -> None:
    units = {vllm_unit(tmp_path, name).name for name in ("llama-3.1-bc-v1.5", "llama-3.1-bc-v1.6")}
    assert units == {"llama-3.1-bc-v1.5-vllm.service", "llama-3.1-bc-v1.6-vllm.service"}


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
