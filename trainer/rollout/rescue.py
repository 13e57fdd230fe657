"""What the teacher is told of a session that the student has had a part in, and what the session tells of the student.

The student's turns stand in the conversation as any assistant's: its text, its calls with ids that begin with
`toolu_local_`, the results. They hold no thinking. The teacher's API looks at two things that such turns can break:

1. A thinking block must bear the signature that the API gave it. Blocks without one, which local servers write, are
   taken out; the teacher's own, signed, stay as they are.
2. With `thinking: enabled`, the assistant's turn whose results are being sent must begin with a thinking block. Where
   the student made that turn, thinking is off for this request, and so is the clearing of thinking.

Where neither applies, the client's own bytes are sent. In the other direction, the student never sees thinking.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from trainer.rollout.session_pinning import Side
from trainer.rollout.student_view import LOCAL_ID, texts_in

_THINKING = ("thinking", "redacted_thinking")
_REJECTED = ("The user doesn't want to", "User rejected tool use")  # Claude Code's words
_INTERRUPTED = "[Request interrupted by user"


def for_teacher(asked: dict[str, Any]) -> dict[str, Any] | None:
    """The request without what the teacher's API would refuse; None where it can go as it is.

    Args:
        asked: a Messages request of a session that the student has had a part in.
    """
    changes: dict[str, Any] = {}
    messages = asked.get("messages")
    if not isinstance(messages, list):
        return None
    kept = [message for message in map(_signed, messages) if message is not None]
    if kept != messages:
        changes["messages"] = kept
    thinking = asked.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled" and _answers_student_without_thinking(kept):
        changes["thinking"] = {"type": "disabled"}
        management = asked.get("context_management")
        if isinstance(management, dict) and isinstance(management.get("edits"), list):
            edits = management["edits"]
            others = [edit for edit in edits if not str(_field(edit, "type")).startswith("clear_thinking")]
            changes["context_management"] = management | {"edits": others}
    return asked | changes if changes else None


class Results(NamedTuple):
    """What the newest message of a request tells about the turn before it; counts alone, no content."""

    after: Side | None
    """Who made the calls; None where no results came."""
    results: int
    failed: int
    rejected: int
    """Calls that the person did not allow."""
    interrupted: bool
    """The person stopped the agent."""


def results_in(asked: dict[str, Any]) -> Results:
    """Reads the newest message of a request, of whatever shape."""
    messages = asked.get("messages")
    messages = messages if isinstance(messages, list) else []
    newest = next((m for m in reversed(messages) if _field(m, "role") == "user"), None)
    blocks = _blocks(newest)
    found = [block for block in blocks if block.get("type") == "tool_result"]
    after: Side | None = None
    if found:
        after = "student" if any(str(block.get("tool_use_id")).startswith(LOCAL_ID) for block in found) else "teacher"
    failed = ["".join(texts_in(block.get("content"))) for block in found if block.get("is_error")]
    return Results(
        after,
        len(found),
        len(failed),
        sum(text.startswith(_REJECTED) for text in failed),
        any(str(block.get("text") or "").startswith(_INTERRUPTED) for block in blocks if block.get("type") == "text"),
    )


def _signed(message: Any) -> Any:
    """The message without thinking that nobody signed; None where nothing else is in it."""
    if _field(message, "role") != "assistant" or not isinstance(message.get("content"), list):
        return message
    content = message["content"]
    kept = [block for block in content if _field(block, "type") != "thinking" or _field(block, "signature")]
    if len(kept) == len(content):
        return message
    return message | {"content": kept} if kept else None


def _answers_student_without_thinking(messages: list[Any]) -> bool:
    """Whether the newest message holds results of a call that the student made without thinking before it."""
    turn = next((_blocks(message) for message in reversed(messages) if _field(message, "role") == "assistant"), [])
    answers = any(block.get("type") == "tool_result" for block in _blocks(messages[-1] if messages else None))
    calls = [str(block.get("id")) for block in turn if block.get("type") == "tool_use"]
    by_student = any(identity.startswith(LOCAL_ID) for identity in calls)
    return answers and by_student and turn[0].get("type") not in _THINKING


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _blocks(message: Any) -> list[dict[str, Any]]:
    content = _field(message, "content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
