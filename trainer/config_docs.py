"""docs/configuration.md, printed from the models of trainer/config.py, so that it cannot fall behind them.

python -m trainer.config_docs > docs/configuration.md
"""

from __future__ import annotations

import inspect
import json
import types
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen, MultipleOf
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trainer.config import Config, Section

INTRODUCTION = """\
# Configuration

One TOML file says everything about a run: `claude-trainer train --config my.toml`. What it leaves out has the default
below. A key that is not listed here is an error that names the nearest one that is; so is a value out of range.
`configs/tiny.toml` (the embedded default) and `configs/llama-3.1-8b.toml` (a GPU) are commented examples. Each run
folder keeps the file as it was resolved, in `config.toml`.

This page is printed from `trainer/config.py` by `python -m trainer.config_docs`; a test compares the two.
"""
_BOUNDS = {
    Ge: ("ge", "≥ {}"),
    Gt: ("gt", "> {}"),
    Le: ("le", "≤ {}"),
    Lt: ("lt", "< {}"),
    MultipleOf: ("multiple_of", "multiple of {}"),
    MinLen: ("min_length", "at least {} characters"),
}
"""Kind of bound → the attribute that holds it, and how it reads."""


def render_configuration() -> str:
    """The whole page as Markdown, ending in a line break."""
    parts = [INTRODUCTION, "## Top level\n", _table(Config)]
    for name, section in _sections(Config):
        parts += [f"## `{name}`\n", f"{inspect.getdoc(section)}\n", _table(section)]
    return "\n".join(parts)


def _sections(model: type[BaseModel], prefix: str = "") -> list[tuple[str, type[BaseModel]]]:
    """(heading as in TOML, model) of every section below `model`, each before its own subsections."""
    found: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        section, many = _section(field)
        if section is not None:
            dotted = f"{prefix}{name}"
            found.append((f"[[{dotted}]]" if many else f"[{dotted}]", section))
            found += _sections(section, f"{dotted}.")
    return found


def _section(field: FieldInfo) -> tuple[type[BaseModel] | None, bool]:
    """The section that a field holds, if it does, and whether it holds a list of them."""
    many = get_origin(field.annotation) is list
    kind = get_args(field.annotation)[0] if many else field.annotation
    if isinstance(kind, type) and issubclass(kind, Section):
        return kind, many
    return None, False


def _table(model: type[BaseModel]) -> str:
    """The plain fields of a section as a table; fields that are sections have a heading of their own."""
    lines = ["| key | type | default | what it does |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if _section(field)[0] is None:
            kind = ", ".join([_type_name(field.annotation), *_bounds(field)])
            lines.append(f"| `{name}` | {kind} | {_default(field)} | {_cell(field.description or '')} |")
    return "\n".join(lines) + "\n"


def _type_name(annotation: Any) -> str:
    """A type as a reader of TOML would call it; a Literal is its choices."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{json.dumps(choice)}`" for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(part) for part in arguments if part is not type(None))
    if origin is list:
        return f"list of {_type_name(arguments[0])}"
    return {str: "text", int: "integer", float: "number", bool: "true or false"}[annotation]


def _bounds(field: FieldInfo) -> list[str]:
    """The range of a value: `≥ 1`, `< 1` …"""
    bounds = []
    for mark in field.metadata:
        if type(mark) not in _BOUNDS:
            raise TypeError(f"{mark!r} has no words for the documentation; add it to _BOUNDS")
        attribute, words = _BOUNDS[type(mark)]
        bounds.append(words.format(getattr(mark, attribute)))
    return bounds


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "unset" if value is None else f"`{_cell(json.dumps(value, ensure_ascii=False))}`"


def _cell(text: str) -> str:
    """Text that cannot end its table cell."""
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    print(render_configuration(), end="")
