"""Did the student get the work done? A yes or no beside the reward, and no part of it.

The check is blunt on purpose and shares no code with the reward model, so that what fools the one does not fool the
other. It is passed where, for one of the references,

- the student ended with an answer,
- every number, path and `quoted` name of the reference's answer that the prompt does not state stands in it, without
  more than as many again besides (an answer that lists everything is none),
- the files that it wrote or edited without an error are the same, and so are the last texts put into them, white
  space apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from claude_capture.claude_trace_schema import Trace
from trainer.student.workspace_paths import to_relative

_FACT = re.compile(r"`([^`\n]+)`|((?:[\w.-]+/)+[\w.-]*\w|\w[\w-]+\.[A-Za-z]\w{0,4}\b)|(\d[\d,]*(?:\.\d+)?)")
SPARE = 3
"""Further facts that any answer may state."""


def outcome_check(student: Trace, references: Sequence[Trace]) -> bool | None:
    """Whether the student's outcome is that of a reference; None where none of them has anything to check."""
    checkable = [reference for reference in references if _asked(reference) or _written(reference)]
    if not checkable:
        return None
    return student.status == "complete" and any(_same(student, reference) for reference in checkable)


def _same(student: Trace, reference: Trace) -> bool:
    wanted, stated = _asked(reference), _asked(student)
    return wanted <= stated and len(stated) <= 2 * len(wanted) + SPARE and _written(student) == _written(reference)


def _asked(trace: Trace) -> set[str]:
    """Facts of the answer that the prompt does not state."""
    return _facts(trace, trace.claude_response) - _facts(trace, trace.user_prompt)


def _facts(trace: Trace, text: str) -> set[str]:
    text = to_relative(text, _root(trace))
    found = (quoted or path or number.replace(",", "") for quoted, path, number in _FACT.findall(text))
    return {fact.removeprefix("./").lower() for fact in found}


def _written(trace: Trace) -> dict[str, str]:
    """The last text put into each file, without white space."""
    texts: dict[str, str] = {}
    root = _root(trace)
    for call in trace.tool_calls:
        path = call.input.get("file_path") or call.input.get("notebook_path")
        text = next((call.input[key] for key in ("new_string", "content", "new_source") if key in call.input), None)
        if isinstance(path, str) and isinstance(text, str) and not call.is_error:
            texts[to_relative(path, root).removeprefix("./")] = "".join(to_relative(text, root).split())
    return texts


def _root(trace: Trace) -> str | None:
    return trace.context.cwd or trace.context.project_dir
