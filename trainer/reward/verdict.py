"""What one component says: a similarity, and where the lost points went."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Verdict:
    """The judgement of one component."""

    similarity: float | None
    """s in [0, 1]; None where the component does not apply."""
    losses: list[tuple[float, str]] = field(default_factory=list)
    """Share of the lost similarity and its reason. Shares are relative: together they stand for 1 - s."""
    student_only: bool = False
    """True where only the student's behaviour made the component apply: it may lower the total, never raise it."""


NOT_APPLICABLE = Verdict(None)
