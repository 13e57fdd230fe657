"""The files of one blind test: what raters see, and the sealed key that says which side is the teacher's.

items.jsonl     a header with the SHA-256 of the key, then one item per line; nothing in it names an author
key.json        sides, trace ids, counts (0600), here or wherever `--key` says; its nonce decided the sides and makes
                its hash unguessable; it holds the SHA-256 of the item lines: neither file can be changed without the
                other showing it
answers.sqlite3 raters, their tokens and their choices (trainer/evaluate/answer_store)

What the seal is good for: who has the page, the items, the seed and the traces cannot work out the sides, and nobody
can change sides or texts after the answers are known. It does not stop who may read key.json from reading it.
"""

from __future__ import annotations

import hashlib
import json
import random
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from claude_capture.claude_trace_schema import SCHEMA_VERSION, Record, Trace
from trainer.config import EvaluateConfig
from trainer.errors import TrainerError
from trainer.evaluate.identity_scrubbing import Scrubber
from trainer.evaluate.pair_rendering import Rendering, render
from trainer.evaluate.pair_sampling import Pair, choose_controls, choose_pairs, project_of
from trainer.run_folder import write_atomic

ITEMS, KEY, ANSWERS = "items.jsonl", "key.json", "answers.sqlite3"


class ItemsHeader(Record):
    """First line of items.jsonl."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this schema")
    created_at: str = Field(description="ISO 8601, UTC")
    items: int = Field(description="Number of items that follow")
    key_sha256: str = Field(description="Of the bytes of key.json")


class Item(Record):
    """One question to a rater."""

    item: str = Field(description="Id within the test")
    prompt: str = Field(description="What the person asked")
    first: Rendering = Field(description="Side 1")
    second: Rendering = Field(description="Side 2")


class KeyEntry(Record):
    """What an item really is."""

    item: str = Field(description="Id within the test")
    kind: Literal["pair", "control"] = Field(description="control: both sides are the teacher's")
    teacher_side: Literal[1, 2] | None = Field(description="None for a control")
    trace_ids: tuple[str, str] = Field(description="Of side 1 and side 2; equal for a pair")
    workflow_type: str = Field(description="Of the teacher's trace")


class Key(Record):
    """The sealed key."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this schema")
    nonce: str = Field(description="Random; makes the hash of this file unguessable")
    items_sha256: str = Field(description="Of the item lines of items.jsonl")
    seed: int = Field(description="Seed of sampling and sides")
    teachers: list[str] = Field(description="Model ids of the teacher")
    students: list[str] = Field(description="Versions of the student")
    entries: list[KeyEntry] = Field(description="In the order of items.jsonl")
    scrubbed: dict[str, dict[str, int]] = Field(
        description="Identity leaks replaced: teacher, student, prompt → kind → n"
    )
    same: int = Field(default=0, description="Pairs whose two sides read the same, word for word")
    unanswered: int = Field(default=0, description="Pairs in which the student gave no answer; they are shown")
    notes: list[str] = Field(default_factory=list, description="What the test lacks, for the report")


def create_test(
    folder: Path,
    teachers: Mapping[str, Trace],
    students: Mapping[str, Trace],
    config: EvaluateConfig,
    *,
    trained_on: set[str] | None = None,
    key_path: Path | None = None,
    notes: Sequence[str] = (),
) -> Key:
    """Makes the test's files.

    A teacher's trace without an answer (interrupted, failed) is no reference and left out. A student's is kept and
    shown as it is: leaving failures out would flatter the student.

    Args:
        teachers, students: traces by trace_id; a student's trace carries the id of the teacher's trace it answers.
        trained_on: trace ids that the student was trained with, which are left out; None where that is not known.
        key_path: where the key is kept; None: in the folder.
        notes: what else the report should say of the test.

    Raises:
        TrainerError: the folder holds a test already, the key is there already, or no held-out prompt has both traces.
    """
    if (folder / ITEMS).exists():
        raise TrainerError(f"{folder}: holds a blind test already; choose another folder, or remove it if it is done")
    if key_path is not None and key_path.exists():
        raise TrainerError(f"{key_path}: is there already; choose another file for the key")
    unseen = {name: trace for name, trace in teachers.items() if name not in (trained_on or ())}
    held_out = {name: trace for name, trace in unseen.items() if trace.claude_response.strip()}
    nonce = secrets.token_hex(32)
    pairs = choose_pairs(held_out, students, config.pairs, config.seed, nonce)
    if not pairs:
        raise TrainerError(
            f"no held-out prompt has both a teacher's and a student's trace ({len(held_out)} and {len(students)} "
            "given); student traces must carry the trace_id of the teacher's trace they answer"
        )
    controls = choose_controls(list(held_out.values()), config.controls, config.seed, nonce)
    shown = [*pairs, *controls]
    random.Random(f"order:{nonce}").shuffle(shown)

    models = sorted({name for pair in shown for name in _model_names(pair.first, pair.second)})
    scrubbers = {role: Scrubber(models) for role in ("teacher", "student", "prompt")}
    items = [_item(f"i{number:03}", pair, scrubbers) for number, pair in enumerate(shown, 1)]
    body = b"".join(item.model_dump_json().encode() + b"\n" for item in items)
    key = Key(
        nonce=nonce,
        items_sha256=hashlib.sha256(body).hexdigest(),
        seed=config.seed,
        teachers=sorted({trace.teacher.model or "unknown" for trace in held_out.values()}),
        students=sorted({s.teacher.student or s.teacher.model or "unknown" for s in students.values()}),
        entries=[_entry(item.item, pair) for item, pair in zip(items, shown, strict=True)],
        scrubbed={role: dict(sorted(scrubber.found.items())) for role, scrubber in scrubbers.items()},
        same=sum(item.first == item.second for item, pair in zip(items, shown, strict=True) if pair.teacher_side),
        unanswered=sum(not students[pair.first.trace_id].claude_response.strip() for pair in pairs),
        notes=[
            *notes,
            *([] if trained_on is None else _left_out("the student was trained on them", len(teachers) - len(unseen))),
            *_left_out("the teacher gave no answer in them", len(unseen) - len(held_out)),
            *_notes(config, pairs, controls, trained_on is not None),
        ],
    )
    sealed = key.model_dump_json(indent=1).encode() + b"\n"
    header = ItemsHeader(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        items=len(items),
        key_sha256=hashlib.sha256(sealed).hexdigest(),
    )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = key_path or folder / KEY
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(target, sealed, 0o600)
    write_atomic(folder / ITEMS, header.model_dump_json().encode() + b"\n" + body)  # last: a test without it is none
    return key


def read_items(folder: Path) -> tuple[ItemsHeader, list[Item]]:
    """Header and items.

    Raises:
        TrainerError: there is no test in the folder, or its items cannot be read.
    """
    path = folder / ITEMS
    try:
        lines = path.read_bytes().splitlines()
        header = ItemsHeader.model_validate_json(lines[0])
        items = [Item.model_validate_json(line) for line in lines[1:]]
    except FileNotFoundError:
        raise TrainerError(f"{folder}: no blind test here; make one with `claude-trainer blind-test create`") from None
    except (ValidationError, IndexError) as error:
        raise TrainerError(f"{path}: not the items of a blind test ({type(error).__name__}); create it anew") from None
    if len(items) != header.items:
        raise TrainerError(f"{path}: {len(items)} of {header.items} items are there; create the test anew")
    return header, items


def open_key(folder: Path, key_path: Path | None = None) -> Key:
    """The key, after both files were checked against each other's hash; `key_path` None: it lies in the folder.

    Raises:
        TrainerError: the key is missing or unreadable, or key or items were changed after the test was made.
    """
    header, _ = read_items(folder)
    path = key_path or folder / KEY
    try:
        sealed = path.read_bytes()
    except FileNotFoundError:
        raise TrainerError(
            f"{path}: no key here; without it the answers cannot be judged (kept elsewhere? say where with --key)"
        ) from None
    if hashlib.sha256(sealed).hexdigest() != header.key_sha256:
        raise TrainerError(f"{path}: the key was changed after the test was made; its answers prove nothing")
    key = Key.model_validate_json(sealed)
    body = (folder / ITEMS).read_bytes().split(b"\n", 1)[1]
    if hashlib.sha256(body).hexdigest() != key.items_sha256:
        raise TrainerError(
            f"{folder / ITEMS}: the items were changed after the test was made; its answers prove nothing"
        )
    return key


def read_training_ids(dataset: Path) -> set[str]:
    """Trace ids that a dataset trains or validates on. Raises TrainerError for a file that is no dataset."""
    ids: set[str] = set()
    try:
        with dataset.open("rb") as stream:
            for line in filter(None, map(bytes.strip, stream)):
                sample = json.loads(line)
                if sample["split"] != "test":
                    ids.add(sample["trace_id"])
    except FileNotFoundError:
        raise TrainerError(f"{dataset}: no such dataset; make it with `claude-trainer dataset build`") from None
    except (json.JSONDecodeError, KeyError, TypeError):
        raise TrainerError(
            f"{dataset}: not a dataset of this trainer; make it with `claude-trainer dataset build`"
        ) from None
    return ids


def _model_names(*traces: Trace) -> list[str]:
    names = [name for trace in traces for name in (trace.teacher.model, trace.teacher.student, trace.teacher.provider)]
    return [name for name in names if name]


def _item(name: str, pair: Pair, scrubbers: Mapping[str, Scrubber]) -> Item:
    roles = ["student" if pair.teacher_side is not None and pair.teacher_side != side else "teacher" for side in (1, 2)]
    return Item(
        item=name,
        prompt=scrubbers["prompt"].text(pair.first.user_prompt if roles[0] == "teacher" else pair.second.user_prompt),
        first=render(pair.first, scrubbers[roles[0]]),
        second=render(pair.second, scrubbers[roles[1]]),
    )


def _entry(item: str, pair: Pair) -> KeyEntry:
    return KeyEntry(
        item=item,
        kind="control" if pair.teacher_side is None else "pair",
        teacher_side=pair.teacher_side,
        trace_ids=(pair.first.trace_id, pair.second.trace_id),
        workflow_type=pair.workflow_type,
    )


def _left_out(why: str, count: int) -> list[str]:
    return [f"{count} teacher traces were left out because {why}"] if count else []


def _notes(config: EvaluateConfig, pairs: Sequence[Pair], controls: Sequence[Pair], checked: bool) -> list[str]:
    notes: list[str] = []
    if not checked:
        notes.append("held-out was not checked: no dataset was given, so prompts may have been trained on")
    if len(pairs) < config.pairs:
        notes.append(f"{len(pairs)} of {config.pairs} pairs: no more held-out prompts have both traces")
    if len(controls) < config.controls:
        found = f"{len(controls)} of {config.controls}" if controls else "no"
        notes.append(f"{found} teacher-against-teacher controls: the teacher repeated no more prompts")
    elsewhere = sum(project_of(pair.first) != project_of(pair.second) for pair in controls)
    if elsewhere:
        notes.append(f"{elsewhere} of {len(controls)} controls repeat a prompt in two projects, so their facts differ")
    return notes
