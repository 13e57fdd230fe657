"""The generated workspace: a grid database, source files with constants, and configs, drawn from a seed.

The world is small on purpose: a student of three million parameters reads numbers digit by digit and must copy
every argument, so values have few digits, no digit stands twice in a row, and a file defines one thing.
"""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

DATABASE = "grid.db"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    "Oakridge Elmwood Birchfield Stonegate Riverside Hillcrest Maplewood Fairview Ashford Brookside Clearwater Dunmore "
    "Eastgate Foxglen Greenhill Juniper"
)
RATINGS = (16, 25, 40, 50, 63, 80)
VOLTAGES = (0.4, 6.3, 10.5, 20.0, 35.0)
STATUSES = ("Active", "Standby", "Maintenance", "Retired")
CONFIGS = tuple(f"config/{name}.env" for name in _words("poller alarm export meter"))
KEYS = tuple(
    f"{first}_{second}"
    for first in _words("RETRY BATCH QUEUE CACHE LOG PAGE")
    for second in _words("LIMIT SIZE TIMEOUT DEPTH")
)
CONSTANTS = tuple(
    f"{first}_{second}" for first in _words("MAX MIN BASE PEAK SAFE WARN") for second in _words("LOAD TEMP FLOW GAIN")
)
SOURCES = tuple(f"src/{name}.py" for name in _words("thermal tariff relay outage scada billing"))
SCHEMA = 'TRANSFORMERS = "id name rated_kva voltage_kv status feeder_id"\nFEEDERS = "id name voltage_kv status"'
QUERIES = 'BY_ID = "SELECT ? FROM transformers WHERE id=?"\nFEEDER = "SELECT ? FROM feeders WHERE id=?"'
TABLES = (
    "CREATE TABLE transformers(id INTEGER, name TEXT, rated_kva INTEGER, voltage_kv REAL, status TEXT, "
    "feeder_id INTEGER)",
    "CREATE TABLE feeders(id INTEGER, name TEXT, voltage_kv REAL, status TEXT)",
)


def _plain(low: int, high: int) -> tuple[int, ...]:
    """The integers low..high (inclusive) in which no digit stands twice in a row."""
    return tuple(n for n in range(low, high + 1) if all(a != b for a, b in itertools.pairwise(str(n))))


TRANSFORMER_IDS = _plain(1, 60)
FEEDER_IDS = _plain(10, 60)
SETTINGS = _plain(10, 98)


class Transformer(NamedTuple):
    """A row of `transformers`; `rated_kva` in kVA, `voltage_kv` in kV."""

    id: int
    name: str
    rated_kva: int
    voltage_kv: float
    status: str
    feeder_id: int


class Feeder(NamedTuple):
    """A row of `feeders`; `voltage_kv` in kV."""

    id: int
    name: str
    voltage_kv: float
    status: str


@dataclass(frozen=True)
class WorkspaceSpec:
    """Everything a workspace holds; equal specs materialise to equal folders."""

    transformers: tuple[Transformer, ...]
    feeders: tuple[Feeder, ...]
    constants: Mapping[str, Mapping[str, int]]
    """Source file → constant → value."""
    settings: Mapping[str, Mapping[str, int]]
    """Config file → key → value."""

    @cached_property
    def files(self) -> dict[str, str]:
        """Relative path → text of every text file."""
        sources = {path: "\n".join(f"{k} = {v}" for k, v in values.items()) for path, values in self.constants.items()}
        configs = {path: "\n".join(f"{k}={v}" for k, v in values.items()) for path, values in self.settings.items()}
        return {"schema.py": SCHEMA, "queries.py": QUERIES, **sources, **configs}

    @cached_property
    def database(self) -> bytes:
        """The bytes of `grid.db`."""
        connection = sqlite3.connect(":memory:")
        try:
            for table in TABLES:
                connection.execute(table)
            connection.executemany("INSERT INTO transformers VALUES (?, ?, ?, ?, ?, ?)", self.transformers)
            connection.executemany("INSERT INTO feeders VALUES (?, ?, ?, ?)", self.feeders)
            connection.commit()
            return connection.serialize()
        finally:
            connection.close()

    def materialise(self, folder: Path) -> Path:
        """Writes the workspace into `folder`, which is made if needed, and returns it."""
        for part in ("config", "src"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for path, text in self.files.items():
            (folder / path).write_text(text, "utf-8")
        (folder / DATABASE).write_bytes(self.database)
        return folder

    def files_changed(self, folder: Path) -> list[str]:
        """Relative paths in `folder` that were changed, added or removed since `materialise`, sorted."""
        expected = {path: text.encode() for path, text in self.files.items()} | {DATABASE: self.database}
        found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        return sorted(
            path
            for path in expected.keys() | found.keys()
            if path not in expected or path not in found or found[path].read_bytes() != expected[path]
        )


def draw_workspace(rng: random.Random, ids: Sequence[int] = ()) -> WorkspaceSpec:
    """Draws a workspace: four feeders with three transformers each.

    Args:
        ids: transformer ids that must exist; at most 12, from `TRANSFORMER_IDS`.
    """
    feeder_ids = rng.sample(FEEDER_IDS, 4)
    drawn = rng.sample(NAMES, 16)
    feeders = tuple(
        Feeder(number, name, rng.choice(VOLTAGES), rng.choice(STATUSES))
        for number, name in zip(feeder_ids, drawn[12:], strict=True)
    )
    others = [number for number in TRANSFORMER_IDS if number not in ids]
    numbers = [*ids, *rng.sample(others, 12 - len(ids))]
    rng.shuffle(numbers)
    names = drawn[:12]
    ratings = [rng.choice(RATINGS) for _ in names]
    rows = [
        Transformer(number, name, rating, rng.choice(VOLTAGES), rng.choice(STATUSES), feeder_ids[index // 3])
        for index, (number, name, rating) in enumerate(zip(numbers, names, ratings, strict=True))
    ]
    constants, keys = rng.sample(CONSTANTS, 4), rng.sample(KEYS, 3)
    return WorkspaceSpec(
        transformers=tuple(sorted(rows)),
        feeders=tuple(sorted(feeders)),
        constants={
            path: {name: rng.choice(SETTINGS)} for path, name in zip(rng.sample(SOURCES, 4), constants, strict=True)
        },
        settings={path: {name: rng.choice(SETTINGS)} for path, name in zip(rng.sample(CONFIGS, 3), keys, strict=True)},
    )
