"""The short tool schemas that a student is trained with and served with.

Claude Code offers its tools with 32 KB of schema text; a 4,096-token student gets one line per tool instead: name,
flat arguments with their types, and the first sentence of the description. Where a trace recorded what was
offered, that is reduced; where it did not, the tools and arguments seen in the dataset's own calls are listed.
Either way only tools that the dataset uses are named: the student is not told of tools it was never shown using.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from claude_capture.claude_trace_schema import ToolCall, Trace
from trainer.dataset.conversation import project_root

MAX_DESCRIPTION = 100
_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def one_line(description: str | None, limit: int = MAX_DESCRIPTION) -> str:
    """The first sentence, on one line, at most `limit` characters."""
    text = " ".join((description or "").split())
    sentence = re.split(r"(?<=[.!?]) ", text, maxsplit=1)[0]
    if len(sentence) <= limit:
        return sentence
    return sentence[: limit - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"


def _type_name(schema: Any) -> str:
    """One JSON type as a string: of a list of types (or of alternatives) the first that is not null."""
    if not isinstance(schema, dict):
        return "any"
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((item for item in kind if item != "null"), None)
    if isinstance(kind, str):
        return kind
    for alternative in [*(schema.get("anyOf") or []), *(schema.get("oneOf") or [])]:
        name = _type_name(alternative)
        if name not in ("null", "any"):
            return name
    return "string" if schema.get("enum") else "any"


def short_schema(tool: dict[str, Any]) -> dict[str, Any] | None:
    """An offered tool, as the Messages API or an OpenAI-style API spells it → its short schema; None if it has no name.

    Arguments come in the order of the original; nested schemas are reduced to their outer type.
    """
    function = tool.get("function")
    function = function if isinstance(function, dict) else tool
    name = function.get("name")
    if not isinstance(name, str) or not name:
        return None
    schema = function.get("input_schema") or function.get("parameters") or {}
    properties = schema.get("properties") if isinstance(schema, dict) else None
    arguments = properties if isinstance(properties, dict) else {}
    required = [key for key in (schema.get("required") or []) if key in arguments] if arguments else []
    return _function(
        name, one_line(function.get("description")), {k: _type_name(v) for k, v in arguments.items()}, required
    )


def _function(name: str, description: str, types: dict[str, str], required: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {argument: {"type": kind} for argument, kind in types.items()},
                "required": list(required),
            },
        },
    }


def schema_of_calls(name: str, calls: Sequence[ToolCall]) -> dict[str, Any]:
    """The schema that calls give away: arguments in order of appearance, required where every call has them.

    Calls that failed count only where nothing else is known: their arguments may be the mistake.
    """
    sound = [call for call in calls if not call.is_error] or list(calls)
    types: dict[str, str] = {}
    for call in sound:
        for argument, value in call.input.items():
            kind = _JSON_TYPES.get(type(value), "any")
            if types.setdefault(argument, kind) != kind and value is not None:
                types[argument] = kind if types[argument] == "any" else types[argument]
    required = [argument for argument in types if all(argument in call.input for call in sound)]
    return _function(name, "", types, required)


class ToolCatalogue:
    """The tools that the traces of a dataset use, and the short list that each trace is given.

    Tools of an MCP server (`mcp__…`) that no trace recorded a schema for are listed only in the projects that use
    them; Claude Code's own tools everywhere.
    """

    def __init__(self, traces: Iterable[Trace]) -> None:
        self._calls: dict[str, list[ToolCall]] = defaultdict(list)
        self._projects: dict[str, set[str | None]] = defaultdict(set)
        for trace in traces:
            for call in trace.tool_calls:
                if call.agent_id == trace.agent_id:
                    self._calls[call.tool].append(call)
                    self._projects[call.tool].add(project_root(trace))
        self._seen = {name: schema_of_calls(name, calls) for name, calls in self._calls.items()}

    def tools_of(self, trace: Trace) -> list[dict[str, Any]]:
        """Short schemas in order of the tools' names; always holds every tool that the trace itself calls."""
        offered: dict[str, dict[str, Any]] = {}
        for tool in trace.context.tools:
            schema = short_schema(tool)
            if schema is not None and schema["function"]["name"] in self._seen:
                offered[schema["function"]["name"]] = schema
        if offered:
            listed = offered
        else:
            root = project_root(trace)
            listed = {
                name: schema
                for name, schema in self._seen.items()
                if not name.startswith("mcp__") or root in self._projects[name]
            }
        own = {call.tool for call in trace.tool_calls if call.agent_id == trace.agent_id}
        for name in own - listed.keys():
            listed[name] = self._seen[name]
        return [listed[name] for name in sorted(listed)]
