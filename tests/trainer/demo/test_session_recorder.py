"""Recorded sessions: the real hook's events and the session files agree with each other and with the plan."""

from __future__ import annotations

import json
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from claude_capture.transcripts import ReadStats, read_records
from trainer.demo.session_file import TEACHER, api_tools
from trainer.demo.session_recorder import project_slug, record_sessions
from trainer.demo.world import DemoEpisode, make_episode
from trainer.errors import TrainerError

Recorded = list[tuple[DemoEpisode, list[dict[str, Any]], list[dict[str, Any]]]]
"""Per episode: records of the session file and payloads of the hook events."""


def mended_episode() -> DemoEpisode:
    return next(e for e in (make_episode(seed, False, "conf") for seed in range(50)) if e.plan[0].failed == (True,))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def recorded(root: Path) -> Recorded:
    episodes = [mended_episode(), make_episode(1, False, "readonly"), make_episode(1, True, "diff")]
    done: list[int] = []
    record_sessions(episodes, root / "data", root / "claude" / "projects", done.append)
    assert sum(done) == 3
    result: Recorded = []
    for episode, project in zip(episodes, ["train-0001", "train-0002", "heldout-0001"], strict=True):
        slug = project_slug(str(root.resolve() / "claude" / "workspaces" / project))
        (file,) = (root / "claude" / "projects" / slug).iterdir()
        stats = ReadStats()
        records = list(read_records(file, stats))
        assert not stats.set_aside
        assert not stats.repaired
        assert not stats.drift, stats.drift
        lines = (root / "data" / "events" / file.name).read_text().splitlines()
        result.append((episode, records, [json.loads(line)["payload"] for line in lines]))
    return result


def blocks(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    chat = [record["message"]["content"] for record in records if record["type"] in ("user", "assistant")]
    return [block for content in chat if isinstance(content, list) for block in content if block["type"] == kind]


def test_the_session_file_holds_the_plan(recorded: Recorded) -> None:
    for episode, records, _ in recorded:
        cwd = next(record["cwd"] for record in records if "cwd" in record)
        uses = blocks(records, "tool_use")
        inputs = [{key: value.removeprefix(f"{cwd}/") for key, value in use["input"].items()} for use in uses]
        assert [(use["name"], given) for use, given in zip(uses, inputs, strict=True)] == list(
            map(tuple, episode.calls)
        )
        paths = [use["input"]["file_path"] for use in uses if "file_path" in use["input"]]
        assert all(path.startswith(f"{cwd}/") for path in paths)
        texts = [block["text"] for block in blocks(records, "text")]
        assert texts == [*(step.text for step in episode.plan), episode.answer]
        results = {block["tool_use_id"]: block for block in blocks(records, "tool_result")}
        outputs = [results[use["id"]]["content"].replace(f"{cwd}/", "") for use in uses]
        assert outputs == [output for step in episode.plan for output in step.outputs]
        errors = [bool(results[use["id"]].get("is_error")) for use in uses]
        assert errors == [failed for step in episode.plan for failed in step.failed]


def test_records_form_one_chain_and_blocks_share_their_message(recorded: Recorded) -> None:
    for episode, records, _ in recorded:
        chain = [record for record in records if "uuid" in record]
        known: set[str | None] = {None}
        for record in chain:
            assert record["parentUuid"] in known
            known.add(record["uuid"])
        times = [record["timestamp"] for record in records if "timestamp" in record]
        assert times == sorted(times)
        messages: dict[str, list[dict[str, Any]]] = {}
        for record in chain:
            if record["type"] == "assistant":
                messages.setdefault(record["message"]["id"], []).append(record)
        assert len(messages) == len(episode.plan) + 1
        for parts in messages.values():
            assert [part["apiBlockIndex"] for part in parts] == list(range(len(parts)))
            assert len({json.dumps([part["requestId"], part["message"]["usage"]]) for part in parts}) == 1
            assert {part["message"]["model"] for part in parts} == {TEACHER}
        use_lines = {
            b["id"]: r["uuid"] for r in chain if r["type"] == "assistant" for b in r["message"]["content"] if "id" in b
        }
        for record in chain:
            if record["type"] == "user" and record["parentUuid"]:
                (block,) = record["message"]["content"]
                assert record["parentUuid"] == use_lines[block["tool_use_id"]]
        (shape,) = [record for record in records if record["type"] == "api-request-shape"]
        assert shape["shape"]["tools"] == api_tools()


def test_some_messages_hold_withheld_thinking(recorded: Recorded) -> None:
    thinking = [block for _, records, _ in recorded for block in blocks(records, "thinking")]
    assert thinking
    assert all(block["thinking"] == "" and block["signature"] for block in thinking)


def test_the_hook_saw_what_claude_code_would_have_told_it(recorded: Recorded) -> None:
    for episode, records, payloads in recorded:
        seen = Counter(payload["hook_event_name"] for payload in payloads)
        refused = sum(failed for step in episode.plan for failed in step.failed)
        ran = len(episode.calls) - refused
        assert seen == Counter(
            {
                "SessionStart": 1,
                "UserPromptSubmit": 1,
                "PreToolUse": ran,
                "PostToolUse": ran,
                "PostToolBatch": len(episode.plan),
                "Stop": 1,
                "SessionEnd": 1,
            }
        )
        prompt = next(payload for payload in payloads if payload["hook_event_name"] == "UserPromptSubmit")
        assert prompt["prompt"] == episode.prompt
        assert {payload["session_id"] for payload in payloads} == {records[0]["sessionId"]}
        results = {block["tool_use_id"]: block["content"] for block in blocks(records, "tool_result")}
        batches = [c for p in payloads if p["hook_event_name"] == "PostToolBatch" for c in p["tool_calls"]]
        assert {call["tool_use_id"]: call["tool_response"] for call in batches} == results
        stop = next(payload for payload in payloads if payload["hook_event_name"] == "Stop")
        assert stop["last_assistant_message"] == episode.answer


def test_nothing_of_the_workspaces_stays_and_files_are_private(root: Path, recorded: Recorded) -> None:
    assert sorted(path.name for path in (root / "claude").iterdir()) == ["projects"]
    files = [path for path in root.rglob("*.jsonl")]
    assert len(files) == 2 * len(recorded)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_recording_again_gives_the_same_session_files(root: Path, recorded: Recorded) -> None:
    before = {path: path.read_bytes() for path in (root / "claude").rglob("*.jsonl")}
    record_sessions([episode for episode, _, _ in recorded], root / "again", root / "claude" / "projects")
    assert {path: path.read_bytes() for path in (root / "claude").rglob("*.jsonl")} == before


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("cat > /dev/null; echo leaked", "exit 0, leaked"),
        ("cat > /dev/null; echo broken >&2; exit 2", "at SessionStart: exit 2, broken"),
    ],
)
def test_a_hook_that_speaks_or_fails_is_reported(tmp_path: Path, script: str, message: str) -> None:
    hook = tmp_path / "hook.sh"
    hook.write_text(f"#!/bin/sh\n{script}\n")
    hook.chmod(0o755)
    with pytest.raises(TrainerError, match=message):
        record_sessions([make_episode(0, False, "const")], tmp_path / "data", tmp_path / "c" / "projects", hook=hook)
    assert not list(tmp_path.rglob("grid.db"))
