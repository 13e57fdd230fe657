"""Which replies of a local server are fit to be released."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loopback_servers import Upstream, http

from trainer.rollout.reply_check import fault

TODO = {
    "name": "TodoWrite",
    "input_schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "todos": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {"content": {"type": "string", "minLength": 1}, "status": {"enum": ["open", "done"]}},
                    "required": ["content", "status"],
                    "additionalProperties": False,
                },
            },
            "limit": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
        },
        "required": ["todos"],
        "additionalProperties": False,
    },
}
BASH = {"name": "Bash", "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}}}


def said(*content: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(content), "stop_reason": "tool_use"}


def use(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": "x", "name": name, "input": arguments}


@pytest.mark.parametrize(
    "arguments",
    [
        {"todos": []},
        {"todos": [{"content": "", "status": "open"}]},
        {"todos": [{"content": "a", "status": "later"}]},
        {"todos": [{"content": "a"}]},
        {"todos": [{"content": "a", "status": "open", "more": 1}]},
        {"todos": [{"content": "a", "status": "open"}], "limit": 0},
        {"todos": "a"},
    ],
)
def test_arguments_are_checked_to_the_depth_of_their_schema(arguments: dict[str, Any]) -> None:
    assert fault(said(use("TodoWrite", **arguments)), [TODO], [], 3) == "invalid_arguments"


def test_sound_arguments_pass() -> None:
    todos = [{"content": "a", "status": "open"}]
    assert fault(said(use("TodoWrite", todos=todos, limit=None)), [TODO], [], 3) is None
    assert fault(said(use("Free", anything=1)), [{"name": "Free"}], [], 3) is None


@pytest.mark.parametrize("schema", [{"type": "nothing"}, {"properties": {"command": {"pattern": "("}}}, {"$ref": "x:"}])
def test_a_schema_that_nobody_can_read_admits_nothing(schema: dict[str, Any]) -> None:
    assert fault(said(use("Odd", command="x")), [{"name": "Odd", "input_schema": schema}], [], 3) == "invalid_arguments"


def turn(*calls: tuple[str, str]) -> list[dict[str, Any]]:
    """A conversation in which Bash was called with a command and gave a result, again and again."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": "go"}]}]
    for number, (command, result) in enumerate(calls):
        made = {"type": "tool_use", "id": str(number), "name": "Bash", "input": {"command": command}}
        messages.append({"role": "assistant", "content": [made]})
        got = {"type": "tool_result", "tool_use_id": str(number), "content": result}
        messages.append({"role": "user", "content": [got]})
    return messages


def test_the_same_call_with_the_same_result_is_a_loop_the_third_time() -> None:
    again = said(use("Bash", command="ls"))
    assert fault(again, [BASH], turn(("ls", "a")), 3) is None
    assert fault(again, [BASH], turn(("ls", "a"), ("ls", "a")), 3) == "loop"
    assert fault(again, [BASH], turn(("ls", "a"), ("cat a", "b"), ("ls", "a"), ("cat a", "b")), 3) == "loop"
    assert fault(again, [BASH], turn(("ls", "a"), ("ls", "a")), 4) is None
    assert fault(again, [BASH], turn(("ls -l", "a"), ("ls -l", "a")), 3) is None


def test_a_test_that_is_run_again_with_another_outcome_is_no_loop() -> None:
    again = said(use("Bash", command="pytest"))
    assert fault(again, [BASH], turn(("pytest", "3 failed"), ("pytest", "2 failed")), 3) is None


def test_one_message_can_be_a_loop_by_itself() -> None:
    assert fault(said(*[use("Bash", command="ls")] * 3), [BASH], [], 3) == "loop"


def test_a_schema_makes_nobody_ask_another_server_or_read_a_file(tmp_path: Path) -> None:
    (tmp_path / "any.json").write_text("{}")
    with Upstream(lambda _: [http("200 OK", b"{}")]) as elsewhere:
        for reference in (f"{elsewhere.url}/any.json", (tmp_path / "any.json").as_uri()):
            tool = {"name": "Bash", "input_schema": {"$ref": reference}}
            assert fault(said(use("Bash")), [tool], [], 3) == "invalid_arguments"
    assert elsewhere.asked == []
    within = {"$defs": {"word": {"type": "string"}}, "properties": {"command": {"$ref": "#/$defs/word"}}}
    tool = {"name": "Bash", "input_schema": within}
    assert fault(said(use("Bash", command="ls")), [tool], [], 3) is None
    assert fault(said(use("Bash", command=1)), [tool], [], 3) == "invalid_arguments"
