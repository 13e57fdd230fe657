"""A request of the Messages API → the conversation that the student reads, and how its turn may end.

What Claude Code's preamble, tools and paths become is decided in one place for every server (rollout/student_view);
here the blocks become chat messages.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from trainer.dataset.conversation import NO_RESULT
from trainer.export.student_prompt import StudentPrompt
from trainer.records import Message
from trainer.rollout.student_view import project_root, student_request
from trainer.student.chat_format import CALL, Tokenizer, encode, escape


class BadRequest(Exception):
    """The request cannot be answered; its text says where it is wrong."""


def _text_or_blocks(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(block, dict) for block in value)):
        return value
    raise PydanticCustomError("content", "Input should be a string or a list of content blocks")


Content = Annotated[Any, BeforeValidator(_text_or_blocks)]


class MessageParam(BaseModel):
    """One message of the client; unknown fields are kept and ignored."""

    model_config = ConfigDict(extra="allow", strict=True)
    role: Literal["user", "assistant", "system"]
    content: Content


class CountRequest(BaseModel):
    """What counting tokens and answering need alike."""

    model_config = ConfigDict(extra="allow", strict=True)
    model: str
    messages: list[MessageParam] = Field(min_length=1)
    system: Content = ""
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None


class MessagesRequest(CountRequest):
    """A request for a reply."""

    max_tokens: int = Field(ge=1)
    temperature: float | None = Field(default=None, ge=0, le=1)
    stop_sequences: list[Annotated[str, Field(min_length=1, max_length=1000)]] | None = Field(None, max_length=64)
    stream: bool = False


Shape = TypeVar("Shape", bound=CountRequest)


@dataclass(frozen=True)
class Prompt:
    """What the student reads, and what its turn is to begin with."""

    ids: list[int]
    forced: str
    """The beginning of a call that the client demands; it is part of the student's turn."""
    root: str | None
    """Project folder of the client, to which the student's paths are relative."""
    single: bool
    """Whether the client wants no parallel calls."""


def parse_request(data: bytes, shape: type[Shape]) -> tuple[dict[str, Any], Shape]:
    """The body as it came and as it was understood.

    Raises:
        BadRequest: not JSON, or not a request of this kind.
    """
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The request body is not valid JSON: {str(error).split(': line')[0]}") from None
    try:
        return body, shape.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise BadRequest(f"{where}: {first['msg']}") from None


def student_prompt_ids(
    body: dict[str, Any], asked: CountRequest, prompt: StudentPrompt, tokenizer: Tokenizer
) -> Prompt:
    """Tokenises a request as the student was trained to read it.

    A client that sends the student's own system prompt (a gateway that has translated already) keeps its system text.

    Raises:
        BadRequest: nothing is left to answer, or a tool is demanded that is not offered.
    """
    try:
        root = project_root(body)
        short = student_request(body, prompt, asked.model)
        system = body.get("system")
        known = isinstance(system, str) and system.startswith(prompt.dataset.system_prompt)
        messages, begun = _conversation(str(system) if known else short["system"], short["messages"])
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise BadRequest(f"a tool or content block is not of the form of the Messages API ({error})") from None
    if len(messages) < 2:
        raise BadRequest("messages: no message holds text or tool results that the model can read")
    tools = _functions(short["tools"])
    choice = asked.tool_choice or {}
    kind = choice.get("type")
    forced = ""
    if kind == "none":
        tools = []
    elif kind == "any" and tools:
        forced = CALL
    elif kind == "tool":
        name = choice.get("name")
        if name not in [tool["function"]["name"] for tool in tools]:
            raise BadRequest(f"tool_choice.name: no tool {str(name)[:100]!r} that the model knows is offered")
        forced = CALL + escape(json.dumps({"name": name}, ensure_ascii=False)[:-1] + ', "parameters":')
    try:
        ids = encode(tokenizer, messages, tools, generation_prompt=True).ids
        ids += tokenizer.encode(escape(begun) + forced, add_special_tokens=False)
    except UnicodeEncodeError:
        raise BadRequest("a text holds half of a surrogate pair, which is no Unicode") from None
    return Prompt(ids, forced, root, choice.get("disable_parallel_tool_use") is True)


def _functions(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tools of the Messages API as the chat template lists them."""
    functions = (
        {"name": tool["name"], "description": tool.get("description", ""), "parameters": tool["input_schema"]}
        for tool in tools
    )
    return [{"type": "function", "function": function} for function in functions]


def _conversation(system: str, messages: list[dict[str, Any]]) -> tuple[list[Message], str]:
    """Chat messages, and the beginning of the reply where the client has written it (its last message)."""
    chat: list[Message] = [{"role": "system", "content": system}]
    waiting: list[str] = []
    for role, group in itertools.groupby(messages, key=lambda message: message["role"]):
        blocks = [block for message in group for block in message["content"]]
        said = "\n\n".join(block["text"] for block in blocks if block["type"] == "text")
        results = {block["tool_use_id"]: block["content"] for block in blocks if block["type"] == "tool_result"}
        for identity in waiting:
            chat.append({"role": "tool", "content": results.get(identity, NO_RESULT), "tool_call_id": identity})
        waiting = []
        if role == "user" and said:
            chat.append({"role": "user", "content": said})
        if role == "assistant":
            calls = [block for block in blocks if block["type"] == "tool_use"]
            waiting = [call["id"] for call in calls]
            message: Message = {"role": "assistant", "content": said}
            if calls:
                functions = ({"name": c["name"], "arguments": c["input"]} for c in calls)
                message["tool_calls"] = [{"type": "function", "function": function} for function in functions]
            chat.append(message)
    if waiting:
        raise ValueError("tool_use without a tool_result in the next message")
    begun = chat.pop()["content"] if chat[-1]["role"] == "assistant" else ""
    return chat, begun.rstrip()
