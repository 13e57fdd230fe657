"""Families of tasks about source files and configs: const, conf, readonly."""

from __future__ import annotations

import random

from trainer.demo.database_tasks import MUST_NOT_CHANGE, READ_ONLY, limits
from trainer.demo.scripted_teacher import Call, Desk, Task, bash, read, say
from trainer.demo.workspace import SETTINGS, WorkspaceSpec

_ONLY_FILE = ("Change only {f}.", "Do not touch any file but {f}.")


def const(rng: random.Random, workspace: WorkspaceSpec) -> Task:
    """Finds where a constant is defined and its value."""
    constant = rng.choice([constant for values in workspace.constants.values() for constant in values])
    wordings, constraint = limits(rng, 0.35)
    phrasings = [
        "Which file defines {c} and what is its value?",
        "Where is {c} defined? Tell me its value.",
        "Find the constant {c} and report its value.",
    ]

    def solve(desk: Desk) -> str:
        (found,) = desk.do(f"I search for {constant}.", Call("Grep", {"pattern": constant}))
        path = found.split("\n")[1]
        (text,) = desk.do(f"It is in {path}. I read it.", read(path))
        value = next(line.split(" = ")[1] for line in text.split("\n") if f"\t{constant} = " in line)
        return f"{constant} = {value} is defined in {path}."

    return Task(say(rng, phrasings, wordings, c=constant), ("const", constant), solve, constraint)


def conf(rng: random.Random, workspace: WorkspaceSpec) -> Task:
    """Edits a config and verifies it; in four of ten the old value that the user names is wrong."""
    path = rng.choice(list(workspace.settings))
    key = rng.choice(list(workspace.settings[path]))
    actual = workspace.settings[path][key]
    new, wrong = rng.sample([value for value in SETTINGS if value != actual], 2)
    named = wrong if rng.random() < 0.4 else actual
    wordings, constraint = (_ONLY_FILE, f"I must change only {path}.") if rng.random() < 0.4 else ((), None)
    phrasings = [
        "Change {k} from {o} to {n} in {f}.",
        "Please set {k} from {o} to {n} in {f}.",
        "In {f}, change {k} from {o} to {n}.",
    ]

    def edit(old: int | str) -> Call:
        return Call("Edit", {"file_path": path, "old_string": f"{key}={old}", "new_string": f"{key}={new}"})

    def solve(desk: Desk) -> str:
        desk.do(f"I edit {key}.", edit(named))
        correction = ""
        if desk.failed:
            (text,) = desk.do("The edit failed, so I read the file.", read(path))
            found = next(line.split("=")[1] for line in text.split("\n") if f"\t{key}=" in line)
            desk.do(f"It says {key}={found}, not {named}. I edit again.", edit(found))
            correction = f" It was {found}, not {named}."
        (line,) = desk.do("I verify the change.", bash(f"grep {key} {path}"))
        return f"{line} is set in {path}.{correction}"

    prompt = say(rng, phrasings, wordings, k=key, o=named, n=new, f=path)
    return Task(prompt, ("conf", key, new), solve, constraint)


def readonly(rng: random.Random, workspace: WorkspaceSpec) -> Task:
    """Looks up a setting and a constant in one message, without changing anything."""
    path = rng.choice(list(workspace.settings))
    key = rng.choice(list(workspace.settings[path]))
    constant = rng.choice([constant for values in workspace.constants.values() for constant in values])
    phrasings = [
        "What is {k} in {f}, and what is {c}?",
        "Tell me {k} in {f} and the value of {c}.",
        "Report {k} in {f} and the constant {c}.",
    ]

    def solve(desk: Desk) -> str:
        search = Call("Grep", {"pattern": constant, "output_mode": "content"})
        text, found = desk.do(f"I read {key} in {path} and search for {constant}.", read(path), search)
        setting = next(line.split("=")[1] for line in text.split("\n") if f"\t{key}=" in line)
        file, _, definition = found.split(":")
        return f"{key}={setting} in {path}. {definition} in {file}."

    prompt = say(rng, phrasings, READ_ONLY, k=key, f=path, c=constant)
    return Task(prompt, ("readonly", key, constant), solve, MUST_NOT_CHANGE)
