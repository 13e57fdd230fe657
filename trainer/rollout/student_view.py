"""A request of Claude Code as the student was trained to read it, and the student's reply as Claude Code wants it.

Claude Code sends about 12,000 tokens before the first word of a conversation; the student was trained with a short
system prompt, the short schemas of a few tools and paths relative to the project: whatever serves it, it gets exactly
these (export/student_prompt). Out go: everything that is not named in `_KEPT`
(context_management, output_config, thinking, metadata…), thinking blocks, cache marks, `<system-reminder>` texts,
the billing header. Of earlier prompts, and the work on them, the digest is left that the student knows from its
training (dataset/session_digest). Back come: absolute paths, fresh ids (small servers repeat theirs within a
conversation), and never a thinking block, because the teacher's API refuses blocks that it has not signed.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

from claude_capture.prompts import command_line, kind_of_text
from trainer.dataset.conversation import shorten
from trainer.dataset.session_digest import Deed, digest, turn_lines, with_digest
from trainer.dataset.tool_schemas import offered_tools
from trainer.export.student_prompt import StudentPrompt
from trainer.student.workspace_paths import to_absolute, to_relative

MAX_NEW_TOKENS = 4096
MOST_TOKENS = 1_000_000_000
"""Counts of a local server beyond that are no counts."""
STRICT_HEADER = "x-claude-trainer-strict"
"""Tells `claude-trainer serve` to answer with an error where the student wrote a call that cannot be read."""
LOCAL_ID = "toolu_local_"
"""Beginning of the ids of the student's calls, by which its turns are known in a later request."""
SPOKEN = ("prompt", "command", "bash_input")
"""Kinds of text that a person speaks in."""
_KEPT = ("stop_sequences", "tool_choice")
_BILLING = "x-anthropic-billing-header:"
_REMINDER = re.compile(r"<system-reminder>.*?</system-reminder>\s*", re.DOTALL)
_REMINDER_END = "</system-reminder>"
_WORKING_DIRECTORY = re.compile(r"^[ \t>*-]*(?:Primary w|W)orking directory: *(\S.*)$", re.MULTILINE)


def project_root(body: dict[str, Any]) -> str | None:
    """The project folder that Claude Code tells the model in its system prompt; None where it does not."""
    texts = texts_in(body.get("system"))
    for message in body.get("messages") or []:
        if isinstance(message, dict) and message.get("role") in ("system", "user"):
            texts += texts_in(message.get("content"))
    for text in texts:
        if not text.startswith(_BILLING) and (match := _WORKING_DIRECTORY.search(text)):
            line = match[1].rstrip(" ")
            path, moved, before = line.partition(" (was ")
            return path if moved and before.endswith(")") else line
    return None


def without_reminders(text: str) -> str:
    """The text without what Claude Code adds to it for the model.

    Behind the last end of a reminder none is looked for: a search from each beginning to the end of a long text would
    hold everybody up.
    """
    rest = text[text.rfind(_REMINDER_END) + len(_REMINDER_END) :].lstrip() if _REMINDER_END in text else text
    return _REMINDER.sub("", text[: len(text) - len(rest)]) + rest


def student_request(body: dict[str, Any], prompt: StudentPrompt, model: str) -> dict[str, Any]:
    """The request that goes to the local server, not streamed.

    Args:
        body: a Messages request of Claude Code, parsed.
        prompt: what the student was trained to read; where it names no tools, all that are offered are shown.
        model: name of the student there.
    """
    root = project_root(body)
    config = prompt.dataset
    messages = _messages(body.get("messages") or [], prompt, root)
    system = config.system_prompt
    if config.digest_tokens:
        earlier, messages = current_turn(messages)
        system = with_digest(system, digest(earlier, config.digest_tokens))
    asked = body.get("max_tokens")
    request: dict[str, Any] = {
        "model": model,
        "system": system,
        "messages": messages,
        "tools": _tools(body.get("tools") or [], prompt),
        "max_tokens": min(asked, MAX_NEW_TOKENS) if isinstance(asked, int) else MAX_NEW_TOKENS,
        "temperature": 0.0,  # as the quality gate has judged it
        "stream": False,
    }
    return request | {key: body[key] for key in _KEPT if key in body}


def _tools(offered: list[Any], prompt: StudentPrompt) -> list[dict[str, Any]]:
    """Of the tools that the student was trained with those that are offered, as it knows them, by name."""
    schemas = {schema["function"]["name"]: schema for schema in offered_tools(filter(_is_object, offered))}
    if prompt.tools:
        schemas = {name: schema for name, schema in prompt.tools.items() if name in schemas}
    tools = []
    for name in sorted(schemas):
        function = schemas[name]["function"]
        tool = {"name": name, "input_schema": function["parameters"]}
        tools.append(tool | ({"description": function["description"]} if function["description"] else {}))
    return tools


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _as_written(name: Any, arguments: dict[str, Any], prompt: StudentPrompt) -> dict[str, Any]:
    """The arguments of an earlier call without those that the student does not know.

    Claude Code gives calls back with defaults filled in: `replace_all` stands in every Edit, whoever wrote it.
    """
    schema = prompt.tools.get(name)
    known = schema["function"]["parameters"]["properties"] if schema else {}
    return {key: value for key, value in arguments.items() if key in known or not known}


def _messages(messages: list[Any], prompt: StudentPrompt, root: str | None) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for message in messages:
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant"):
            continue
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        shown = [block for block in (_block(block, prompt, root) for block in blocks) if block is not None]
        if shown:
            kept.append({"role": role, "content": shown})
    return kept


def current_turn(messages: list[dict[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """The turns before the last prompt, each told in a few lines, and the conversation from that prompt on.

    A prompt is a user message in which a person speaks. Results that stand in the same message end the turn before it:
    so the client writes it where the person interrupted a call. A notification or an interruption is no prompt.
    """
    earlier: list[str] = []
    prompt: str | None = None
    current: list[dict[str, Any]] = []
    for message in messages:
        texts = [block for block in message["content"] if block["type"] == "text"] if message["role"] == "user" else []
        said = [block for block in texts if kind_of_text(block["text"]) in SPOKEN]
        if not said:
            current.append(message)
            continue
        if prompt is not None:
            results = [block for block in message["content"] if block["type"] == "tool_result"]
            earlier.append(_told(prompt, [*current[1:], {"role": "user", "content": results}]))
        prompt = "\n\n".join(command_line(block["text"]) for block in said)
        current = [{"role": "user", "content": said}]
    return earlier, current


def _told(prompt: str, work: list[dict[str, Any]]) -> str:
    """An earlier turn in a few lines."""
    blocks = [block for message in work for block in message["content"]]
    failed = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result" and block.get("is_error")}
    calls = [block for block in blocks if block["type"] == "tool_use"]
    deeds = [Deed(str(call["name"]), call["input"], call["id"] in failed) for call in calls]
    last: list[dict[str, Any]] = next((m["content"] for m in reversed(work) if m["role"] == "assistant"), [])
    answer = [] if any(block["type"] == "tool_use" for block in last) else [block["text"] for block in last]
    return turn_lines(prompt, deeds, "\n\n".join(answer))


def _block(block: Any, prompt: StudentPrompt, root: str | None) -> dict[str, Any] | None:
    """One content block for the student; None for what it never sees."""
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "text":
        text = str(block.get("text") or "")
        text = "" if text.startswith(_BILLING) else to_relative(without_reminders(text), root).strip()
        return {"type": "text", "text": text} if text else None
    if kind == "tool_use":
        arguments = _as_written(block.get("name"), to_relative(block.get("input") or {}, root), prompt)
        return {"type": "tool_use", "id": block.get("id"), "name": block.get("name"), "input": arguments}
    if kind == "tool_result":
        text = shorten(to_relative("\n".join(texts_in(block.get("content"))), root), prompt.dataset.max_output_chars)
        result = {"type": "tool_result", "tool_use_id": block.get("tool_use_id"), "content": text}
        return result | ({"is_error": True} if block.get("is_error") else {})
    return None


def texts_in(content: Any) -> list[str]:
    """The texts of a content, whatever its shape."""
    if isinstance(content, str):
        return [content]
    blocks = content if isinstance(content, list) else []
    return [str(block.get("text") or "") for block in blocks if isinstance(block, dict) and block.get("type") == "text"]


def client_reply(reply: dict[str, Any], root: str | None, model: str) -> dict[str, Any]:
    """A validated reply as Claude Code gets it; it names the student, so that no trace takes it for the teacher's."""
    content: list[dict[str, Any]] = []
    for block in reply["content"]:
        if block.get("type") == "text" and block.get("text"):
            content.append({"type": "text", "text": block["text"]})
        elif block.get("type") == "tool_use":
            fresh = LOCAL_ID + uuid.uuid4().hex[:20]
            arguments = to_absolute(block["input"], root)
            content.append({"type": "tool_use", "id": fresh, "name": block["name"], "input": arguments})
    usage = reply.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    told = {name: usage.get(name) for name in ("input_tokens", "output_tokens")}
    counts = {name: n if type(n) is int and 0 <= n <= MOST_TOKENS else 0 for name, n in told.items()}
    called = any(block["type"] == "tool_use" for block in content)
    return {
        "id": f"msg_local_{uuid.uuid4().hex[:20]}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": "tool_use" if called else "end_turn",
        "stop_sequence": None,
        "usage": counts,
    }
