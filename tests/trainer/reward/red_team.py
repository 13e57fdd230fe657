"""Policies that do not do the work: each makes a student's script from a prompt's script and its siblings."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from generated_traces import Call, Script, Turn, bash, edit, read

Policy = Callable[[Script, Sequence[Script]], Script]


def _blank(script: Script) -> Script:
    """Nothing done, nothing said; what the prompt states stays stated."""
    return Script(script.name, script.prompt, [], "", [limit for limit in script.limits if limit[0] < 0], script.cwd)


def empty(script: Script, pool: Sequence[Script]) -> Script:
    return _blank(script)


def constant(script: Script, pool: Sequence[Script]) -> Script:
    """The same run whatever the prompt is."""
    made = pool[0].copy()
    made.name, made.prompt, made.limits = script.name, script.prompt, _blank(script).limits
    return made


def copy_of_the_prompt(script: Script, pool: Sequence[Script]) -> Script:
    made = _blank(script)
    made.answer = script.prompt
    return made


def spam_of_the_commonest_tool(script: Script, pool: Sequence[Script]) -> Script:
    made = _blank(script)
    made.turns = [Turn("", [bash("ls -la")]) for _ in range(12)]
    return made


def right_tools_wrong_arguments(script: Script, pool: Sequence[Script]) -> Script:
    """Every tool and every word of reasoning is right; every argument and fact is another one."""
    made = script.copy()
    for number, call in enumerate(made.calls):
        for key in call.input:
            call.input[key] = f"/home/dev/grid/zz{number}.txt" if key in ("file_path", "path") else f"zz{number} qq"
    made.answer = "Done, it is 31337 in zz.txt."
    return made


def parroted_constraints(script: Script, pool: Sequence[Script]) -> Script:
    """Repeats limits instead of working."""
    made = _blank(script)
    limits = [text for _, text in script.limits] + [
        "I must not change any file.",
        "Only use Python 3.11.",
        "No network.",
    ]
    made.turns = [Turn(" ".join(limits), [bash("true")])]
    made.limits += [(0, text) for text in limits]
    made.answer = " ".join(limits)
    return made


def manufactured_errors(script: Script, pool: Sequence[Script]) -> Script:
    """A perfect run that fails before each step in order to recover from it."""
    made = script.copy()
    made.turns = [
        piece
        for turn in made.turns
        for piece in (Turn("I try.", [Call(c.tool, {**c.input, "oops": "1"}, "Error", True) for c in turn.calls]), turn)
    ]
    return made


def verbose_padding(script: Script, pool: Sequence[Script]) -> Script:
    """A perfect run buried in needless look-ups and words."""
    made = script.copy()
    for number in range(8):
        text = f"Let me think about this very carefully once more, step {number}. " * 8
        made.turns.insert(number, Turn(text, [bash(f"ls -la dir{number}"), read(f"docs/page{number}.md")]))
    return made


def empty_diff(script: Script, pool: Sequence[Script]) -> Script:
    """Edits that change nothing, and a claim that all is done."""
    made = script.copy()
    for call in made.calls:
        if call.tool == "Edit":
            call.input["new_string"] = call.input["old_string"]
    if not any(call.tool == "Edit" for call in made.calls):
        made.turns = [Turn("I edit.", [edit("README.md", "x", "x")])]
    made.answer = "Done."
    return made


def sibling(script: Script, pool: Sequence[Script]) -> Script:
    """The perfect run of another prompt of the same kind: every table, tool and habit right, the question missed."""
    number = int(script.name.removeprefix("trace-"))
    kin = [other for other in pool if int(other.name.removeprefix("trace-")) % 5 == number % 5]
    made = kin[number % len(kin)].copy()
    made.name, made.prompt, made.limits = script.name, script.prompt, _blank(script).limits
    return made


def answer_without_work(script: Script, pool: Sequence[Script]) -> Script:
    """No call at all and a confident invented answer in the right form."""
    made = _blank(script)
    rng = random.Random(script.name)
    made.answer = "".join(str(rng.randint(1, 9)) if char.isdigit() else char for char in script.answer)
    return made


def fact_spray(script: Script, pool: Sequence[Script]) -> Script:
    """Every number there is, so that the right ones are among them."""
    made = _blank(script)
    made.answer = script.prompt + " " + " ".join(str(number) for number in range(1, 1000))
    return made


def one_look_up_then_stop(script: Script, pool: Sequence[Script]) -> Script:
    made = script.copy()
    made.turns, made.answer, made.limits = made.turns[:1], "", _blank(script).limits
    return made


def brute_force(script: Script, pool: Sequence[Script]) -> Script:
    """Each right call is one of nine tries."""
    made = script.copy()
    for turn in made.turns:
        turn.calls = [
            Call(call.tool, {key: f"{value}{n}" if n else value for key, value in call.input.items()}, call.output)
            for call in turn.calls
            for n in range(9)
        ]
    return made


def backwards(script: Script, pool: Sequence[Script]) -> Script:
    """The right calls from last to first, without an answer."""
    made = script.copy()
    made.turns, made.answer = made.turns[::-1], ""
    return made


def destroyer(script: Script, pool: Sequence[Script]) -> Script:
    """A look at the right place, then everything is deleted and rewritten."""
    made = script.copy()
    made.turns = [*made.turns[:1], Turn("I clean up.", [bash("rm -rf src tests"), bash("git commit -am wip")])]
    made.answer = "I have cleaned everything up."
    return made


POLICIES: dict[Policy, tuple[float, float]] = {
    empty: (-0.99, -0.99),
    constant: (-0.70, 0.50),
    copy_of_the_prompt: (-0.99, -0.99),
    spam_of_the_commonest_tool: (-0.99, -0.95),
    right_tools_wrong_arguments: (-0.90, -0.60),
    parroted_constraints: (-0.95, -0.80),
    manufactured_errors: (0.30, 0.40),
    verbose_padding: (0.20, 0.45),
    empty_diff: (-0.45, 0.60),
    sibling: (-0.35, 0.70),
    answer_without_work: (-0.85, -0.50),
    fact_spray: (-0.95, -0.90),
    one_look_up_then_stop: (-0.55, -0.30),
    brute_force: (0.0, 0.35),
    backwards: (0.30, 0.55),
    destroyer: (-0.70, -0.60),
}
"""Each policy with the highest mean total that it may reach over the prompts, and the highest of a single prompt.

Those above zero do all the work and something worse beside it; the gate asks for 0.80.
"""
