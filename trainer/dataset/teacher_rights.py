"""Whose work may be learned from: only that of teachers which the user's config declares.

Providers' terms differ: some forbid training a model on their outputs, some licences allow it. The software cannot
know which terms a user is bound by, so it wants them stated once, with the reason, which is stored with every
sample. A trace counts as taught by every model that wrote one of its messages; each of them needs a declaration.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase

from claude_capture.claude_trace_schema import Trace
from claude_capture.message_values import is_student
from trainer.config import TeacherRights

UNKNOWN = "unknown"
"""Stands for the model of a trace that names none; it can be declared like any other."""
_NO_MODEL = {"<synthetic>"}  # Claude Code's own notices ("API Error: …") carry this instead of a model id


def teachers_of(trace: Trace) -> list[str]:
    """Every model that wrote in the trace, in order of appearance."""
    models = [step.model for step in trace.steps] + [trace.teacher.model]
    named = dict.fromkeys(model for model in models if model and model not in _NO_MODEL)
    return list(named) or [UNKNOWN]


def main_teacher(trace: Trace) -> str:
    """The trace's own teacher: who wrote its last message, as far as that is one of `teachers_of`."""
    models = teachers_of(trace)
    return trace.teacher.model if trace.teacher.model in models else models[-1]


def by_student(trace: Trace) -> bool:
    """Whether one of our own students wrote in the trace, be it one turn that a gateway let through."""
    return trace.teacher.student is not None or any(is_student(model) for model in teachers_of(trace))


def basis_for(model: str, declarations: Sequence[TeacherRights]) -> str | None:
    """The basis of the first declaration whose glob fits the model id (letter case aside), or None."""
    name = model.casefold()
    return next((item.basis for item in declarations if fnmatchcase(name, item.match.casefold())), None)


def undeclared(trace: Trace, declarations: Sequence[TeacherRights]) -> str | None:
    """The first of the trace's teachers without a declaration, or None if all have one."""
    return next((model for model in teachers_of(trace) if basis_for(model, declarations) is None), None)


def declaration_for(model: str) -> str:
    """The TOML lines that declare a model, ready to be pasted; the user fills in the basis."""
    return f'[[teachers]]\nmatch = {json.dumps(model)}\nbasis = "licence: …"'
