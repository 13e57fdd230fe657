"""The part of the `sqlite3` command line that the demo world needs, the same bytes on every machine.

`python sqlite3_shim.py [-line] [-header] DATABASE SQL` prints what the command line shell prints: rows as values
joined by `|`, or with `-line` as `column = value`, the names aligned right in at least five columns. `.schema [TABLE]`
and `.tables` are known. It imports nothing of ours, so that it can be run by path as a program on PATH.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

USAGE = "Usage: sqlite3 [-line] [-header] DATABASE SQL"


class Finished(NamedTuple):
    """What a program left behind."""

    stdout: str
    stderr: str
    status: int


def _text(value: object) -> str:
    if value is None:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _statements(sql: str) -> Iterator[str]:
    """Cuts a script at the semicolons that end a statement."""
    statement = ""
    for piece in sql.split(";"):
        statement += piece + ";"
        if sqlite3.complete_statement(statement):
            if statement.strip(" \t\r\n;"):
                yield statement
            statement = ""
    if statement.strip(" \t\r\n;"):
        yield statement


def _rows(cursor: sqlite3.Cursor, line: bool, header: bool) -> Iterator[str]:
    names = [column[0] for column in cursor.description or ()]
    width = max([5, *map(len, names)])
    for index, row in enumerate(cursor):
        if line:
            yield ("\n" if index else "") + "\n".join(
                f"{name:>{width}} = {_text(value)}" for name, value in zip(names, row, strict=True)
            )
        else:
            if header and index == 0:
                yield "|".join(names)
            yield "|".join(map(_text, row))


def _expand(sql: str) -> str:
    """The query behind a dot command; other text is returned as it is."""
    words = sql.split()
    if words[:1] == [".tables"]:
        return "SELECT name FROM sqlite_master WHERE type='table' ORDER BY name"
    if words[:1] == [".schema"]:
        chosen = f" AND name='{words[1]}'" if len(words) > 1 else ""
        return f"SELECT sql || ';' FROM sqlite_master WHERE sql IS NOT NULL{chosen}"
    return sql


def run(arguments: Sequence[str], folder: str = ".") -> Finished:
    """Runs `sqlite3 ARGUMENTS…` with `folder` as working directory."""
    options = [argument for argument in arguments if argument.startswith("-")]
    positional = [argument for argument in arguments if not argument.startswith("-")]
    unknown = [option for option in options if option.lstrip("-") not in ("line", "header", "list", "batch")]
    if unknown:
        return Finished("", f"sqlite3: Error: unknown option: {unknown[0]}\n{USAGE}", 1)
    if len(positional) != 2:
        return Finished("", USAGE, 1)
    name, sql = positional
    names = {option.lstrip("-") for option in options}
    printed: list[str] = []
    try:
        connection = sqlite3.connect(name if name.startswith("/") else f"{folder}/{name}", isolation_level=None)
    except sqlite3.Error as error:
        return Finished("", f"Error: {error}", 1)
    try:
        for statement in _statements(_expand(sql)):
            printed += _rows(connection.execute(statement), "line" in names, "header" in names)
    except sqlite3.Error as error:
        return Finished("\n".join(printed), f"Error: in prepare, {error}", 1)
    finally:
        connection.close()
    return Finished("\n".join(printed), "", 0)


if __name__ == "__main__":
    finished = run(sys.argv[1:])
    if finished.stdout:
        print(finished.stdout)
    if finished.stderr:
        print(finished.stderr, file=sys.stderr)
    sys.exit(finished.status)
