"""Families of tasks about the grid database: diff, count, chain, name, top."""

from __future__ import annotations

import random

from trainer.demo.scripted_teacher import HEADLINE, Call, Desk, Task, query, read, say
from trainer.demo.workspace import RATINGS, STATUSES, WorkspaceSpec

READ_ONLY = (
    "Do not change any files.",
    "Read-only: do not change any files.",
    "Don't modify anything.",
    "You must not change any file.",
)
MUST_NOT_CHANGE = "I must not change any file."
_SQLITE_ONLY = ("Use only sqlite3.", "Only use sqlite3, no other tool.", "You must use only sqlite3.")
_MUST_USE_SQLITE = "I must use only sqlite3."
_COMPARED = ("rated_kva", "voltage_kv", "status", "feeder_id")


def _limits(rng: random.Random) -> tuple[tuple[str, ...], str | None]:
    """Limits for a database question: none in 55 of 100, read-only in 20, only sqlite3 in 25."""
    drawn = rng.random()
    if drawn < 0.55:
        return (), None
    return (READ_ONLY, MUST_NOT_CHANGE) if drawn < 0.75 else (_SQLITE_ONLY, _MUST_USE_SQLITE)


def _read_schema(desk: Desk, constraint: str | None) -> None:
    if constraint == _MUST_USE_SQLITE:
        desk.do("I read the schema first.", query(".schema transformers"))
    else:
        desk.do("I read the schema first.", read("schema.py"))


def diff(rng: random.Random, workspace: WorkspaceSpec, headline: bool = False) -> Task:
    """Compares two rows, by id or by name; 'at once' asks for both queries in one message."""
    names = [row.name for row in workspace.transformers]
    by_name = not headline and rng.random() < 0.35
    rows = [row for row in workspace.transformers if not by_name or names.count(row.name) == 1]
    first, second = rng.sample(rows, 2)
    if headline:
        first, second = (next(row for row in rows if row.id == number) for number in (1, 2))
    a, b = (first.name, second.name) if by_name else (first.id, second.id)
    labels = [str(x) if by_name else f"transformer {x}" for x in (a, b)]
    kind = "{a} and {b}" if by_name else rng.choice(["transformer {a} and transformer {b}", "transformers {a} and {b}"])
    limits, constraint = ((), None) if headline else _limits(rng)
    together = not headline and rng.random() < 0.3
    phrasings = [f"What's the difference between {kind}?", f"Compare {kind}.", f"Show me how {kind} differ."]
    if together:
        phrasings = [f"Get {kind} at once and compare them.", f"Compare {kind}. Get both at once."]

    def solve(desk: Desk) -> str:
        _read_schema(desk, constraint)
        if constraint != _MUST_USE_SQLITE:
            arguments = {"pattern": "transformers", "path": "queries.py", "output_mode": "content"}
            desk.do("Next I look for the query.", Call("Grep", arguments))
        where = "name='{}'" if by_name else "id={}"
        queries = [query(f"SELECT * FROM transformers WHERE {where.format(x)}", line=True) for x in (a, b)]
        if together:
            outputs = desk.do("Now I get both at once.", *queries)
        else:
            outputs = [desk.do(f"Now I get {x}.", call)[0] for x, call in zip(labels, queries, strict=True)]
        left, right = (dict(line.strip().split(" = ") for line in output.split("\n")) for output in outputs)
        columns = ("id" if by_name else "name", *_COMPARED)
        title = " vs ".join(labels)
        pairs = [f"{column}: {left[column]} vs {right[column]}" for column in columns]
        return "\n".join([f"{title[0].upper()}{title[1:]}:", *pairs])

    prompt = HEADLINE if headline else say(rng, phrasings, limits, a=a, b=b)
    key = ("diff", *sorted([a, b])) if by_name else ("diff", min(first.id, second.id), max(first.id, second.id))
    return Task(prompt, key, solve, constraint)


def count(rng: random.Random, workspace: WorkspaceSpec) -> Task:
    """Counts the transformers with a status, on a feeder or above a rating."""
    status, limit = rng.choice(STATUSES), _limits(rng)
    if rng.random() < 0.6:
        number = rng.choice(workspace.feeders).id
        condition, kind = f"feeder_id={number}", "on feeder"
        phrasings = [
            "How many transformers on feeder {n} are {s}?",
            "Count the {s} transformers on feeder {n}.",
            "Give me the number of {s} transformers on feeder {n}.",
        ]
    else:
        number = rng.choice(RATINGS[:-1])
        condition, kind = f"rated_kva>{number}", "above"
        phrasings = [
            "How many {s} transformers are rated above {n} kVA?",
            "Count the {s} transformers above {n} kVA.",
            "Give me the number of {s} transformers rated above {n} kVA.",
        ]

    def solve(desk: Desk) -> str:
        _read_schema(desk, limit[1])
        sql = f"SELECT COUNT(*) FROM transformers WHERE {condition} AND status='{status}'"
        (total,) = desk.do(f"Now I count the {status} transformers.", query(sql))
        return f"{total} {status} transformers {kind} {number}{' kVA' if kind == 'above' else ''}."

    prompt = say(rng, phrasings, limit[0], n=number, s=status)
    return Task(prompt, ("count", status, condition), solve, limit[1])


def chain(rng: random.Random, workspace: WorkspaceSpec) -> Task:
    """Follows a transformer to its feeder, then asks about the feeder."""
    row, counting, (limits, constraint) = rng.choice(workspace.transformers), rng.random() < 0.4, _limits(rng)
    if counting:
        phrasings = [
            "How many transformers share the feeder of transformer {a}?",
            "Count the transformers on the feeder of transformer {a}.",
        ]
    else:
        phrasings = [
            "Which feeder supplies transformer {a} and what is its status?",
            "Name the feeder of transformer {a} and its status.",
            "Find the feeder of transformer {a} and tell me its name and status.",
        ]

    def solve(desk: Desk) -> str:
        _read_schema(desk, constraint)
        (feeder,) = desk.do(
            f"Now I get the feeder of transformer {row.id}.",
            query(f"SELECT feeder_id FROM transformers WHERE id={row.id}"),
        )
        if counting:
            sql = f"SELECT COUNT(*) FROM transformers WHERE feeder_id={feeder}"
            (total,) = desk.do(f"It is feeder {feeder}. I count its transformers.", query(sql))
            return f"Transformer {row.id} is on feeder {feeder} with {total} transformers."
        sql = f"SELECT name, status FROM feeders WHERE id={feeder}"
        (found,) = desk.do(f"It is feeder {feeder}. I get its name and status.", query(sql))
        name, status = found.split("|")
        return f"Transformer {row.id} is on feeder {feeder} {name}, status {status}."

    prompt = say(rng, phrasings, limits, a=row.id)
    return Task(prompt, ("chain", row.id, "count" if counting else "name"), solve, constraint)


def name(rng: random.Random, workspace: WorkspaceSpec) -> Task:
    """Asks for a value by name and feeder; where the name is not unique, the way by name is dropped for the id."""
    names = [row.name for row in workspace.transformers]
    shared = rng.random() < 0.6
    row = rng.choice([row for row in workspace.transformers if (names.count(row.name) > 1) == shared])
    column = rng.choice(["rated_kva", "voltage_kv", "status"])
    limits, constraint = (READ_ONLY, MUST_NOT_CHANGE) if rng.random() < 0.25 else ((), None)
    phrasings = [
        "What is the {c} of {n} on feeder {f}?",
        "Tell me the {c} of {n} on feeder {f}.",
        "Look up the {c} of {n}, the one on feeder {f}.",
    ]

    def solve(desk: Desk) -> str:
        sql = f"SELECT feeder_id, id FROM transformers WHERE name='{row.name}'"
        (found,) = desk.do(f"I look up {row.name} by name.", query(sql))
        ids = dict(line.split("|") for line in found.split("\n"))
        if len(ids) > 1:
            text = "The name is not unique, so I will query by id rather than querying by name."
            where = f"id={ids[str(row.feeder_id)]}"
        else:
            text, where = "The name is unique, so I query by name.", f"name='{row.name}'"
        (value,) = desk.do(text, query(f"SELECT {column} FROM transformers WHERE {where}"))
        return f"The {column} of {row.name} on feeder {row.feeder_id} is {value}."

    prompt = say(rng, phrasings, limits, c=column, n=row.name, f=row.feeder_id)
    return Task(prompt, ("name", row.name, row.feeder_id), solve, constraint)


def top(rng: random.Random, workspace: WorkspaceSpec) -> Task:
    """Lists the largest transformers of a feeder, at most one or two of them."""
    feeder, most = rng.choice(workspace.feeders).id, rng.choice([1, 2])
    phrasings = [
        "List the largest transformers on feeder {f}.",
        "Which transformers on feeder {f} have the highest rating?",
        "Name the largest transformers on feeder {f} and their rating.",
    ]
    limits = ["At most {n}.", "No more than {n}.", "Give me at most {n}."]

    def solve(desk: Desk) -> str:
        desk.do("I read the schema first.", read("schema.py"))
        sql = f"SELECT name, rated_kva FROM transformers WHERE feeder_id={feeder} ORDER BY rated_kva DESC LIMIT {most}"
        (found,) = desk.do("Now I list the largest.", query(sql))
        largest = [line.split("|") for line in found.split("\n")]
        return f"Largest on feeder {feeder}: " + ", ".join(f"{title} {rating} kVA" for title, rating in largest) + "."

    prompt = say(rng, phrasings, limits, f=feeder, n=most)
    return Task(prompt, ("top", feeder, most), solve, f"I must list at most {most}.")
