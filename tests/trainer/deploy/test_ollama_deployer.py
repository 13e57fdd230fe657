"""A model goes into service and comes back out, over real HTTP, with everything going wrong on the way."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ollama_server import Fault, OllamaServer

from trainer.config import DeployConfig
from trainer.deploy.admission import Candidate, admit
from trainer.deploy.command import deploy as deploy_command
from trainer.deploy.command import rollback as rollback_command
from trainer.deploy.ollama_client import server_url
from trainer.deploy.ollama_deployer import DeployReport, SmokeTest, read_log, rollback, smoke_test_from
from trainer.deploy.ollama_deployer import deploy as deploy_candidate
from trainer.errors import TrainerError
from trainer.export.export_records import DoctorReport, ExportedFile, ExportReport, Provenance, sha256_of
from trainer.export.registry import Registry
from trainer.records import BCSample, GateReport
from trainer.student.chat_format import BOS

QUICK = 0.01


def config_for(server: OllamaServer, **changes: Any) -> DeployConfig:
    return DeployConfig(host=server.url, **changes)


def deploy(path: Path, config: DeployConfig, **options: Any) -> DeployReport:
    """Deploys a file that no registry knows."""
    return deploy_candidate(Candidate(path), config, **options)


def tag_of(path: Path) -> str:
    return f"cc-claude-agent:{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def latest(server: OllamaServer) -> str | None:
    model = server.state.models.get("cc-claude-agent:latest")
    return model.digest if model is not None else None


def test_model_is_served_under_an_immutable_name_and_as_latest(ollama: OllamaServer, make_gguf: Any) -> None:
    path = make_gguf("one")
    report = deploy(path, config_for(ollama), backoff=QUICK)
    assert report.tag == tag_of(path)
    assert report.uploaded
    assert report.calls == ["Bash"]
    assert latest(ollama) == ollama.state.models[report.tag].digest
    request = ollama.state.models[report.tag].request
    assert request["parameters"] == {"num_ctx": 2048, "stop": ["<|eot_id|>"]}
    assert request["license"] == ["apache-2.0"]
    assert "template" not in request


def test_context_window_is_at_most_what_the_file_was_made_for(ollama: OllamaServer, make_gguf: Any) -> None:
    assert deploy(make_gguf("one", context=8192), config_for(ollama, num_ctx=4096), backoff=QUICK).num_ctx == 4096
    assert deploy(make_gguf("two", context=1024), config_for(ollama, num_ctx=4096), backoff=QUICK).num_ctx == 1024


def test_latest_is_only_ever_copied_to(ollama: OllamaServer, make_gguf: Any) -> None:
    first, second = make_gguf("one"), make_gguf("two")
    deploy(first, config_for(ollama), backoff=QUICK)
    report = deploy(second, config_for(ollama), backoff=QUICK)
    assert report.previous == tag_of(first)
    assert {model.request["model"] for model in ollama.state.models.values()} == {tag_of(first), tag_of(second)}
    for model in ollama.state.models.values():
        assert model.blobs <= set(ollama.state.blobs)


def test_deploying_twice_sends_nothing_and_keeps_the_way_back(ollama: OllamaServer, make_gguf: Any) -> None:
    first, second = make_gguf("one"), make_gguf("two")
    deploy(first, config_for(ollama), backoff=QUICK)
    deploy(second, config_for(ollama), backoff=QUICK)
    again = deploy(second, config_for(ollama), backoff=QUICK)
    assert not again.uploaded
    assert rollback(config_for(ollama), second.parent, backoff=QUICK).tag == tag_of(first)


def test_rollback_walks_back_step_by_step(ollama: OllamaServer, make_gguf: Any) -> None:
    paths = [make_gguf(name) for name in ("one", "two", "three")]
    config = config_for(ollama)
    for path in paths:
        deploy(path, config, backoff=QUICK)
    folder = paths[0].parent
    assert rollback(config, folder, backoff=QUICK).tag == tag_of(paths[1])
    assert rollback(config, folder, backoff=QUICK).tag == tag_of(paths[0])
    assert latest(ollama) == ollama.state.models[tag_of(paths[0])].digest
    with pytest.raises(TrainerError, match="no deployment before"):
        rollback(config, folder, backoff=QUICK)
    deploy(paths[2], config, backoff=QUICK)
    assert rollback(config, folder, backoff=QUICK).tag == tag_of(paths[0])


def test_rollback_to_a_named_tag(ollama: OllamaServer, make_gguf: Any) -> None:
    first, second = make_gguf("one"), make_gguf("two")
    for path in (first, second):
        deploy(path, config_for(ollama), backoff=QUICK)
    target = tag_of(first).split(":")[1]
    assert rollback(config_for(ollama), first.parent, to=target, backoff=QUICK).tag == tag_of(first)
    with pytest.raises(TrainerError, match="has no cc-claude-agent:nonsense; it has: "):
        rollback(config_for(ollama), first.parent, to="nonsense", backoff=QUICK)


def test_deployment_log_is_written_before_latest_moves(ollama: OllamaServer, make_gguf: Any) -> None:
    first, second = make_gguf("one"), make_gguf("two")
    deploy(first, config_for(ollama), backoff=QUICK)
    before = latest(ollama)
    ollama.state.faults.append(Fault("POST", "/api/copy", "error", times=1, status=500, text="gone"))
    with pytest.raises(TrainerError, match="gone"):
        deploy(second, config_for(ollama), backoff=QUICK)
    assert latest(ollama) == before
    assert [entry.tag for entry in read_log(first.parent)] == [tag_of(first), tag_of(second)]
    deploy(second, config_for(ollama), backoff=QUICK)
    assert rollback(config_for(ollama), first.parent, backoff=QUICK).tag == tag_of(first)


def test_error_line_after_http_200_is_an_error(ollama: OllamaServer, make_gguf: Any) -> None:
    ollama.state.faults.append(Fault("POST", "/api/create", "stream_error", text="unknown type"))
    with pytest.raises(TrainerError, match=r"create cc-claude-agent:\w{12}: unknown type; run `claude-trainer doctor`"):
        deploy(make_gguf("one"), config_for(ollama), backoff=QUICK)
    assert ollama.state.models == {}


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (Fault("POST", "/api/blobs", "full"), "free disk space where Ollama keeps its models"),
        (Fault("POST", "/api/create", "stream_error", text="write x: no space left on device"), "free disk space"),
        (
            Fault("POST", "/api/create", "stream_error", text="unsupported quantization type Q9"),
            "does not know the type",
        ),
    ],
    ids=["full in mid-upload", "full in mid-create", "quantisation"],
)
def test_trouble_that_trying_again_cannot_help_is_one_line(
    ollama: OllamaServer, make_gguf: Any, fault: Fault, advice: str
) -> None:
    deploy(make_gguf("zero"), config_for(ollama), backoff=QUICK)
    before = latest(ollama)
    ollama.state.faults.append(fault)
    with pytest.raises(TrainerError, match=advice) as failure:
        deploy(make_gguf("one", size=1 << 18), config_for(ollama), backoff=QUICK)
    assert "\n" not in str(failure.value)
    assert (latest(ollama), fault.times) == (before, 0)


def test_server_that_dies_in_mid_create_leaves_nothing_and_a_new_one_finishes(
    ollama: OllamaServer, make_gguf: Any, tmp_path: Path
) -> None:
    ollama.state.faults.append(Fault("POST", "/api/create", "die"))
    path = make_gguf("one", size=1 << 18)
    with pytest.raises(TrainerError, match=r"does not answer .*; start it with `ollama serve`") as failure:
        deploy(path, config_for(ollama), backoff=QUICK)
    assert "\n" not in str(failure.value)
    assert ollama.state.models == {}
    assert read_log(path.parent) == []
    with OllamaServer(ollama.state.folder) as restarted:
        report = deploy(path, config_for(restarted), backoff=QUICK)
        assert not report.uploaded
        assert latest(restarted) == restarted.state.models[report.tag].digest


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", "/api/create", "busy", times=2),
        Fault("POST", "/api/create", "die_in_stream", times=2),
        Fault("POST", "/api/create", "reset", times=1),
        Fault("POST", "/api/blobs", "reset_in_body", times=2),
        Fault("POST", "/api/blobs", "busy", times=1),
        Fault("HEAD", "/api/blobs", "reset", times=1),
        Fault("GET", "/api/version", "reset", times=2),
        Fault("GET", "/api/tags", "busy", times=1),
        Fault("POST", "/api/create", "slow", times=1),
        Fault("POST", "/api/generate", "busy", times=3),
        Fault("POST", "/api/copy", "reset", times=1),
    ],
    ids=lambda fault: f"{fault.path.rsplit('/', 1)[1]}-{fault.kind}",
)
def test_passing_trouble_is_sat_out(ollama: OllamaServer, make_gguf: Any, fault: Fault) -> None:
    ollama.state.faults.append(fault)
    report = deploy(make_gguf("one", size=1 << 18), config_for(ollama), backoff=QUICK)
    assert fault.times == 0
    assert latest(ollama) == ollama.state.models[report.tag].digest


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("POST", "/api/create", "die_in_stream", times=99), "create .*: the connection to .* broke"),
        (Fault("POST", "/api/create", "busy", times=99), "503.*; the server is busy: try again later"),
        (Fault("POST", "/api/blobs", "reset_in_body", times=99), "upload of .*one.gguf: the connection to .* broke"),
    ],
    ids=["dies", "busy", "upload"],
)
def test_lasting_trouble_is_one_line_and_nothing_is_promoted(
    ollama: OllamaServer, make_gguf: Any, fault: Fault, message: str
) -> None:
    deploy(make_gguf("zero"), config_for(ollama), backoff=QUICK)
    before = latest(ollama)
    ollama.state.faults.append(fault)
    with pytest.raises(TrainerError, match=message) as failure:
        deploy(make_gguf("one", size=1 << 18), config_for(ollama), backoff=QUICK)
    assert "\n" not in str(failure.value)
    assert latest(ollama) == before


def test_upload_that_broke_after_the_last_byte_is_not_repeated(ollama: OllamaServer, make_gguf: Any) -> None:
    path = make_gguf("one")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    ollama.state.put(path.read_bytes())
    report = deploy(path, config_for(ollama), backoff=QUICK)
    assert not report.uploaded
    assert ("POST", f"/api/blobs/sha256:{digest}") not in ollama.state.requests


def test_rewritten_file_is_served_all_the_same(ollama: OllamaServer, make_gguf: Any) -> None:
    ollama.state.rewrite = True
    path = make_gguf("one")
    report = deploy(path, config_for(ollama), backoff=QUICK)
    assert report.tag == tag_of(path)
    assert latest(ollama) == ollama.state.models[report.tag].digest


@pytest.mark.parametrize(
    "answer",
    [
        "I cannot do that.<|eot_id|>",
        "",
        '<|python_tag|>{"name": "Bash", "parameters": ',
        '<|python_tag|>{"name": "Launch", "parameters": {}}<|eot_id|>',
    ],
    ids=["prose", "nothing", "torn", "foreign tool"],
)
def test_model_that_does_not_call_a_tool_never_becomes_latest(
    ollama: OllamaServer, make_gguf: Any, answer: str
) -> None:
    deploy(make_gguf("zero"), config_for(ollama), backoff=QUICK)
    before = latest(ollama)
    ollama.state.reply = lambda _: answer
    with pytest.raises(TrainerError, match="failed the smoke test, latest is left as it was"):
        deploy(make_gguf("one"), config_for(ollama), backoff=QUICK)
    assert latest(ollama) == before


def test_smoke_test_asks_in_the_trainers_own_format(ollama: OllamaServer, make_gguf: Any) -> None:
    tool = {"type": "function", "function": {"name": "Query", "parameters": {}}}
    smoke = SmokeTest(messages=[{"role": "user", "content": "Count <|eot_id|> rows"}], tools=[tool])
    ollama.state.reply = lambda _: 'Reading.<|python_tag|>{"name": "Query", "parameters": {"sql": "SELECT 1"}}'
    deploy(make_gguf("one"), config_for(ollama), smoke=smoke, backoff=QUICK)
    request = ollama.state.prompts[-1]
    assert request["raw"] is True
    assert request["prompt"].count(BOS) == 1
    assert "Count <\\|eot_id|> rows<|eot_id|>" in request["prompt"]
    assert request["prompt"].endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")


def test_server_that_is_not_running_is_named_with_the_command_to_start_it(make_gguf: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = DeployConfig(host=f"http://127.0.0.1:{port}")
    with pytest.raises(TrainerError, match="start it with `ollama serve`"):
        deploy(make_gguf("one"), config, backoff=QUICK)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("htp://x", "'htp://x' is neither http nor https; give host:port"),
        ("http://[::1", r"'http://\[::1' is no address"),
        ("user:pw@127.0.0.1:1", "is no address"),
    ],
)
def test_host_that_is_none_is_one_line(make_gguf: Any, host: str, message: str) -> None:
    with pytest.raises(TrainerError, match=message):
        deploy(make_gguf("one"), DeployConfig(host=host), backoff=QUICK)


def test_another_program_at_the_address_is_noticed(ollama: OllamaServer, make_gguf: Any) -> None:
    ollama.state.faults.append(Fault("GET", "/api/version", "error", status=404, text="nothing here"))
    with pytest.raises(TrainerError, match="GET /api/version: HTTP 404: nothing here"):
        deploy(make_gguf("one"), config_for(ollama), backoff=QUICK)


def test_old_server_is_refused(ollama: OllamaServer, make_gguf: Any) -> None:
    ollama.state.version = "0.4.2"
    with pytest.raises(TrainerError, match=r"version 0\.4\.2; 0\.5\.5 or newer is needed"):
        deploy(make_gguf("one"), config_for(ollama), backoff=QUICK)
    ollama.state.version = "0.0.0"
    deploy(make_gguf("one"), config_for(ollama), backoff=QUICK)


def test_file_that_is_no_gguf_is_never_sent(ollama: OllamaServer, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_text("hello")
    with pytest.raises(TrainerError, match="not a GGUF"):
        deploy(path, config_for(ollama), backoff=QUICK)
    assert ollama.state.requests == []


def test_modelfile_is_written_beside_the_file(ollama: OllamaServer, make_gguf: Any) -> None:
    path = make_gguf("one")
    report = deploy(path, config_for(ollama), backoff=QUICK)
    assert Path(report.modelfile or "").read_text().splitlines() == [
        "FROM ./one.gguf",
        "PARAMETER num_ctx 2048",
        'PARAMETER stop "<|eot_id|>"',
        'LICENSE """apache-2.0"""',
    ]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1:11434", "http://127.0.0.1:11434"),
        ("http://gpu.example", "http://gpu.example:80"),
        ("https://gpu.example/", "https://gpu.example:443"),
        ("gpu.example", "http://gpu.example:11434"),
        (":8080", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("http://0.0.0.0:11434", "http://127.0.0.1:11434"),
        ("[::1]:11434", "http://[::1]:11434"),
        ("https://gpu.example:9000/ollama", "https://gpu.example:9000/ollama"),
        ("gpu.example:1234/", "http://gpu.example:1234"),
        ("::1", "http://[::1]:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("[::]:11434", "http://[::1]:11434"),
        ("fe80::1:2", "http://[fe80::1:2]:11434"),
        ('  "0.0.0.0:8080" ', "http://127.0.0.1:8080"),
        ("gpu.example:99999", "http://gpu.example:11434"),
        ("gpu.example:port", "http://gpu.example:11434"),
        ("", "http://127.0.0.1:11434"),
    ],
)
def test_host_is_read_as_ollama_reads_it(host: str, url: str) -> None:
    assert server_url(host) == url


def test_commands_deploy_and_roll_back_through_ollama_host(
    ollama: OllamaServer, make_gguf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", ollama.url.removeprefix("http://"))
    first, second = make_gguf("one"), make_gguf("two")
    for path in (first, second):
        result = CliRunner().invoke(deploy_command, [str(path), "--json", "--force", "a test"])
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["tag"] == tag_of(path)
    result = CliRunner().invoke(rollback_command, ["--models", str(first.parent)])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"cc-claude-agent:latest is {tag_of(first)} again")


def test_damaged_log_stops_a_deployment_before_it_starts(ollama: OllamaServer, make_gguf: Any) -> None:
    path = make_gguf("one")
    (path.parent / "deployments.json").write_text('{"cut')
    with pytest.raises(TrainerError, match="not a log of deployments"):
        deploy(path, config_for(ollama), backoff=QUICK)
    assert ollama.state.requests == []


def registered(path: Path, *, passed: bool = True) -> None:
    """Enters a file as the current model of its folder."""
    size, digest = path.stat().st_size, sha256_of(path)
    file = ExportedFile(path=str(path), type="q4_k_m", bytes=size, sha256=digest, seconds=0.1)
    report = ExportReport(name="m", base="b", adapter=None, merged=0, tensors=1, plain=file, quantized=file)
    gate = GateReport(passed=passed, verdict="PASS" if passed else "FAIL", n=50)
    registry = Registry(path.parent)
    registry.register(report, DoctorReport(path=str(path), healthy=True, checks=[]), Provenance(), gate)
    registry.promote("m", force="test")


def test_registered_model_is_deployed_by_name_by_path_or_as_the_current_one(
    ollama: OllamaServer, make_gguf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", ollama.url)
    path = make_gguf("one")
    registered(path)
    for arguments in (["m"], [], [str(path)]):
        result = CliRunner().invoke(deploy_command, [*arguments, "--models", str(path.parent)])
        assert result.exit_code == 0, result.output
        assert f"cc-claude-agent:latest is now {tag_of(path)}" in result.output


@pytest.mark.parametrize("known", [True, False], ids=["failed gate", "unregistered"])
def test_model_that_nobody_vouches_for_is_deployed_only_with_a_reason_that_is_kept(
    ollama: OllamaServer, make_gguf: Any, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", ollama.url)
    path = make_gguf("one")
    if known:
        registered(path, passed=False)
    arguments = [str(path), "--models", str(path.parent)]
    refusal = str(CliRunner().invoke(deploy_command, arguments).exception)
    assert ("it has the gate verdict FAIL" if known else "does not know it: no gate and no doctor") in refusal
    assert "or give a reason with --force" in refusal
    assert ollama.state.requests == []
    assert CliRunner().invoke(deploy_command, [*arguments, "--force", "to look at it"]).exit_code == 0
    assert [entry.forced for entry in read_log(path.parent)] == ["to look at it"]


def test_reason_that_was_not_needed_is_not_kept(ollama: OllamaServer, make_gguf: Any) -> None:
    path = make_gguf("one")
    registered(path)
    deploy_candidate(admit("m", path.parent, force="in a hurry"), config_for(ollama), backoff=QUICK)
    assert [entry.forced for entry in read_log(path.parent)] == [""]


def test_longer_or_unknown_model_is_not_deployed(
    ollama: OllamaServer, make_gguf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", ollama.url)
    path = make_gguf("one")
    models = ["--models", str(path.parent)]
    assert "no model is current" in str(CliRunner().invoke(deploy_command, models).exception)
    registered(path)
    assert "no model 'n'; registered: m" in str(CliRunner().invoke(deploy_command, ["n", *models]).exception)
    with path.open("ab") as stream:
        stream.write(b"x")
    assert "changed since it was registered" in str(CliRunner().invoke(deploy_command, ["m", *models]).exception)
    assert ollama.state.requests == []


@pytest.mark.parametrize("there", [False, True], ids=["not yet on the server", "the true bytes on the server"])
def test_tampered_file_of_the_same_size_is_one_line_and_nothing_is_promoted(
    ollama: OllamaServer, make_gguf: Any, there: bool
) -> None:
    path = make_gguf("one", size=1 << 18)
    registered(path)
    content = bytearray(path.read_bytes())
    if there:
        ollama.state.put(bytes(content))
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(TrainerError, match=r"one\.gguf: changed since it was registered \(digest differs\)") as failure:
        deploy_candidate(admit("m", path.parent), config_for(ollama), backoff=QUICK)
    assert "\n" not in str(failure.value)
    assert ollama.state.models == {}
    assert read_log(path.parent) == []


def test_registered_file_is_sent_in_one_pass(ollama: OllamaServer, make_gguf: Any) -> None:
    """Its digest is known: hashing it first would double the time of a deployment."""
    path = make_gguf("one", size=1 << 20)
    registered(path)
    seen: list[str] = []
    deploy_candidate(
        admit("m", path.parent), config_for(ollama), backoff=QUICK, progress=lambda what, done, total: seen.append(what)
    )
    assert set(seen) == {"uploading"}
    assert ollama.state.received == path.stat().st_size


def test_smoke_test_is_taken_from_a_held_out_sample() -> None:
    call = {"id": "call_0", "type": "function", "function": {"name": "Query", "arguments": {}}}
    opening = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]

    def sample(split: str, prompt: str, **answer: Any) -> BCSample:
        messages = [opening[0], {"role": "user", "content": prompt}, {"role": "assistant", "content": "", **answer}]
        return BCSample.model_validate(
            {
                "trace_id": prompt,
                "prompt": prompt,
                "response": "",
                "workflow_type": "database",
                "exploration_depth": "minimal",
                "messages": messages,
                "weights": [1.0],
                "split": split,
                "family": "f",
                "teacher": {"model": "m"},
                "basis": "own",
            }
        )

    samples = [sample("train", "a", tool_calls=[call]), sample("test", "b"), sample("test", "c", tool_calls=[call])]
    assert [message["content"] for message in smoke_test_from(samples).messages] == ["s", "c"]
    with pytest.raises(TrainerError, match="no sample opens with a tool call"):
        smoke_test_from(samples[1:2])
