"""Families of tasks about the grid database: diff, count, chain."""

from __future__ import annotations

import random

from trainer.demo.scripted_teacher import HEADLINE, Call, Desk, Task, query, read, say
from trainer.demo.workspace import STATUSES, WorkspaceSpec

READ_ONLY = ("Do not change any files.", "Read-only: do not change any files.", "You must not change any file.")
MUST_NOT_CHANGE = "I must not change any file."
_COMPARED = ("name", "rated_kva", "status")


def limits(rng: random.Random, share: float) -> tuple[tuple[str, ...], str | None]:
    """The wordings of a read-only limit and the teacher's own, for a share of the prompts; else none."""
    return (READ_ONLY, MUST_NOT_CHANGE) if rng.random() < share else ((), None)


def _columns(row: str) -> dict[str, str]:
    """A row as `sqlite3 -line` prints it."""
    return dict(line.strip().split(" = ") for line in row.split("\n"))


def diff(rng: random.Random, workspace: WorkspaceSpec, headline: bool = False) -> Task:
    """Compares two rows; 'at once' asks for both queries in one message."""
    rows = {row.id: row for row in workspace.transformers}
    first, second = (1, 2) if headline else rng.sample(sorted(rows), 2)
    wordings, constraint = ((), None) if headline else limits(rng, 0.35)
    together = not headline and rng.random() < 0.3
    phrasings = [
        "What's the difference between transformer {a} and transformer {b}?",
        "Compare transformer {a} and transformer {b}.",
        "Show me how transformer {a} and transformer {b} differ.",
    ]
    if together:
        phrasings = [
            "Get transformer {a} and transformer {b} at once and compare them.",
            "Compare transformer {a} and transformer {b}. Get both at once.",
        ]

    def solve(desk: Desk) -> str:
        desk.do("I read the schema first.", read("schema.py"))
        search = Call("Grep", {"pattern": "transformers", "path": "queries.py", "output_mode": "content"})
        desk.do("Next I look for the query.", search)
        sql = f"SELECT {', '.join(_COMPARED)} FROM transformers WHERE id="
        queries = [query(f"{sql}{number}", line=True) for number in (first, second)]
        if together:
            outputs = desk.do(f"Now I get transformer {first} and transformer {second}.", *queries)
        else:
            numbered = zip((first, second), queries, strict=True)
            outputs = [desk.do(f"Now I get transformer {number}.", call)[0] for number, call in numbered]
        left, right = map(_columns, outputs)
        pairs = [f"{column}: {left[column]} vs {right[column]}" for column in _COMPARED]
        return "\n".join([f"Transformer {first} vs transformer {second}:", *pairs])

    prompt = HEADLINE if headline else say(rng, phrasings, wordings, a=first, b=second)
    return Task(prompt, ("diff", *sorted([first, second])), solve, constraint)


def count(rng: random.Random, workspace: WorkspaceSpec) -> Task:
    """Counts the transformers with a status on a feeder."""
    status, feeder = rng.choice(STATUSES), rng.choice(workspace.feeders).id
    wordings, constraint = limits(rng, 0.35)
    phrasings = [
        "How many transformers on feeder {n} are {s}?",
        "Count the {s} transformers on feeder {n}.",
        "Give me the number of {s} transformers on feeder {n}.",
    ]

    def solve(desk: Desk) -> str:
        desk.do("I read the schema first.", read("schema.py"))
        sql = f"SELECT COUNT(*) FROM transformers WHERE feeder_id={feeder} AND status='{status}'"
        (total,) = desk.do(f"Now I count the {status} transformers.", query(sql))
        return f"{total} {status} transformers on feeder {feeder}."

    return Task(say(rng, phrasings, wordings, n=feeder, s=status), ("count", status, feeder), solve, constraint)


def chain(rng: random.Random, workspace: WorkspaceSpec) -> Task:
    """Follows a transformer to its feeder, then asks about the feeder."""
    number = rng.choice(workspace.transformers).id
    wordings, constraint = limits(rng, 0.35)
    phrasings = [
        "Which feeder supplies transformer {a} and what is its status?",
        "Name the feeder of transformer {a} and its status.",
        "Find the feeder of transformer {a} and tell me its name and status.",
    ]

    def solve(desk: Desk) -> str:
        desk.do("I read the schema first.", read("schema.py"))
        sql = f"SELECT feeder_id FROM transformers WHERE id={number}"
        (row,) = desk.do(f"Now I get the feeder of transformer {number}.", query(sql, line=True))
        feeder = _columns(row)["feeder_id"]
        sql = f"SELECT name, status FROM feeders WHERE id={feeder}"
        (row,) = desk.do(f"Its feeder_id is {feeder}. I get name and status.", query(sql, line=True))
        found = _columns(row)
        return f"Transformer {number} is on feeder {feeder}, name {found['name']}, status {found['status']}."

    return Task(say(rng, phrasings, wordings, a=number), ("chain", number), solve, constraint)
