"""Which samples are trained on and which are kept for judging.

Sessions that belong together (resumes, forks) form a family; a family never crosses splits. Neither do families
that hold the same episode: they are tied together before anything is split, so that the leak check at the end
holds by construction and still is done, on the finished samples, by every build and every `dataset audit`.

**What counts as the same episode.** People ask the same thing often ("run the tests", "continue"), and the answer
depends on the world. So an equal prompt alone is no leak. It is one
- where everything equals: prompt, calls and results (a copied or re-imported session, in whatever folder);
- or where, in the same workspace, prompt, first calls and their results equal: the same question in the same state
  of the same world, even where the work took another turn later.
An equal prompt in another workspace, or in the same one after it changed, with different results, is another task;
such repeats across the test border are counted (`repeated_prompts`), and those of them that also start with the
same call, and reported.

Prompts are compared after Unicode normalisation, with case and white space folded; digits and punctuation count.
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from trainer.config import DatasetConfig
from trainer.errors import TrainerError
from trainer.records import BCSample, Message, Split


@dataclass(frozen=True)
class Fingerprints:
    """What makes two episodes the same, as digests."""

    prompt: str
    first_call: str
    """Prompt with the first turn's calls."""
    opening: str
    """Workspace, prompt, first calls and their results; empty where there is no result to compare."""
    episode: str
    """Prompt and everything after it."""


@dataclass(frozen=True)
class Member:
    """What the split needs to know of one sample."""

    family: str
    started_at: str
    project: str
    fingerprints: Fingerprints


@dataclass(frozen=True)
class LeakReport:
    """The test border, checked."""

    repeated_prompts: int
    """Test samples whose prompt also stands in train or validation: the same words, another task."""
    repeated_first_calls: int
    """Those of them that start with the same call, too."""


def _digest(*values: object) -> str:
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def normalised_prompt(text: str) -> str:
    """Unicode-normalised, case-folded, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _plain(message: Message) -> list[object]:
    calls = [[call["function"]["name"], call["function"]["arguments"]] for call in message.get("tool_calls") or []]
    return [message["role"], message.get("content") or "", calls]


def fingerprints(messages: Sequence[Message], workspace: str) -> Fingerprints:
    """The digests of a sample's conversation; `workspace` identifies the folder it took place in."""
    prompt = normalised_prompt(next((m["content"] for m in messages if m["role"] == "user"), ""))
    work = [message for message in messages if message["role"] not in ("system", "user")]
    first = _plain(work[0])[2] if work else []
    results = []
    for message in work[1:]:
        if message["role"] != "tool":
            break
        results.append(message["content"])
    return Fingerprints(
        prompt=_digest(prompt),
        first_call=_digest(prompt, first),
        opening=_digest(workspace, prompt, first, results) if first and results else "",
        episode=_digest(prompt, [_plain(message) for message in work]),
    )


def tied_families(members: Sequence[Member]) -> list[list[str]]:
    """Groups of families that share an episode (see the module), each sorted; the groups in order of their first."""
    leader = {member.family: member.family for member in members}

    def find(family: str) -> str:
        while leader[family] != family:
            leader[family] = leader[leader[family]]
            family = leader[family]
        return family

    holder: dict[str, str] = {}
    for member in members:
        for key in (member.fingerprints.episode, member.fingerprints.opening):
            if key:
                one, other = find(holder.setdefault(key, member.family)), find(member.family)
                leader[max(one, other)] = min(one, other)
    groups: dict[str, list[str]] = defaultdict(list)
    for family in sorted(leader):
        groups[find(family)].append(family)
    return [groups[name] for name in sorted(groups)]


def assign_splits(members: Sequence[Member], config: DatasetConfig) -> dict[str, Split]:
    """The split of every family.

    1. `test`: families with a trace in a project whose folder name fits one of `test_projects`.
    2. `test`: the newest other families, until `test_fraction` of all families (rounded up) are in it; what
       `test_projects` took counts. A lone family, and a group of more than half of all, is left to training.
    3. `validation`: of the rest, those whose hashed name falls below `validation_fraction`: stable as data grows.
    4. `train`: everything else.
    """
    groups = tied_families(members)
    projects: dict[str, set[str]] = defaultdict(set)
    newest: dict[str, str] = defaultdict(str)
    for member in members:
        projects[member.family].add(member.project)
        newest[member.family] = max(newest[member.family], member.started_at)
    splits: dict[str, Split] = {}
    for group in groups:
        names = {project for family in group for project in projects[family]}
        if any(fnmatchcase(name, glob) for name in names for glob in config.test_projects):
            splits |= dict.fromkeys(group, "test")

    families = len(newest)
    wanted = math.ceil(config.test_fraction * families - 1e-9)
    rest = [group for group in groups if group[0] not in splits]
    rest.sort(key=lambda group: (max(newest[family] for family in group), group), reverse=True)
    for group in rest:
        if len(splits) >= wanted:
            break
        if 2 * len(group) <= families:
            splits |= dict.fromkeys(group, "test")
    for group in rest:
        if group[0] not in splits:
            held_out = _fraction(group[0]) < config.validation_fraction
            splits |= dict.fromkeys(group, "validation" if held_out else "train")
    return splits


def _fraction(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def check_leaks(samples: Iterable[BCSample]) -> LeakReport:
    """Checks finished samples: no family and no episode on two sides.

    Raises:
        TrainerError: a family or an episode (see the module) stands in two splits; both traces are named.
    """
    family_split: dict[str, BCSample] = {}
    holder: dict[str, BCSample] = {}
    prompts: dict[bool, set[str]] = {True: set(), False: set()}
    first_calls: dict[bool, set[str]] = {True: set(), False: set()}
    prints: list[tuple[bool, Fingerprints]] = []
    for sample in samples:
        other = family_split.setdefault(sample.family, sample)
        if other.split != sample.split:
            raise TrainerError(
                f"leak: family {sample.family} is in {other.split} (trace {other.trace_id}) and in {sample.split} "
                f"(trace {sample.trace_id}); rebuild the dataset"
            )
        if sample.window:
            continue
        found = fingerprints(sample.messages, sample.workspace)
        for key in filter(None, (found.episode, found.opening)):
            other = holder.setdefault(key, sample)
            if other.split != sample.split:
                raise TrainerError(
                    f"leak: the same episode is in {other.split} (trace {other.trace_id}) and in {sample.split} "
                    f"(trace {sample.trace_id}), prompt {sample.prompt[:60]!r}; rebuild the dataset"
                )
        is_test = sample.split == "test"
        prints.append((is_test, found))
        prompts[is_test].add(found.prompt)
        first_calls[is_test].add(found.first_call)
    return LeakReport(
        repeated_prompts=sum(is_test and found.prompt in prompts[False] for is_test, found in prints),
        repeated_first_calls=sum(is_test and found.first_call in first_calls[False] for is_test, found in prints),
    )
