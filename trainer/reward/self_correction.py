"""Self-correction: were real failures mended, and none made for show?

A failure is a call that failed by its own fault. It is recovered when a later call of the same aim (same file; same
program; for other tools the same tool) goes through: changed, or the same check after a change in between.

    s = engagement / (1 + surplus failures + 4 · surplus failures left open)

Surplus is what goes beyond the reference's own count. So an error-free run is the ceiling, repeating the teacher's
own failed attempt and mending it costs nothing, every further failure costs even when it is mended, and a failure
left open costs most. None where neither side failed. Where only the student failed, the component can lower the
total but never raise it (behavioral_reward_model.py): manufactured errors do not pay.
"""

from __future__ import annotations

from trainer.reward.behaviour import Behaviour, CallView
from trainer.reward.call_description import shown
from trainer.reward.verdict import NOT_APPLICABLE, Verdict

OPEN = 4.0
"""Weight of a surplus failure that was left open, beside one that was mended."""


def _aim(call: CallView) -> tuple[str, str]:
    if call.command is not None:
        return call.tool, call.command.program
    path = call.arguments.get("file_path") or call.arguments.get("notebook_path")
    return ("file" if path else call.tool), str(path or "")


def open_failures(behaviour: Behaviour) -> list[CallView]:
    """The failures that no later call mended."""
    left = []
    for failure in behaviour.failures:
        aim = _aim(failure)
        changed = False
        for later in behaviour.calls[failure.index + 1 :]:
            if later.failed or later.denied:
                continue
            if _mends(later, failure, aim, changed):
                break
            changed = changed or later.writes is not None
        else:
            left.append(failure)
    return left


def _mends(later: CallView, failure: CallView, aim: tuple[str, str], changed: bool) -> bool:
    if failure.writes is not None and later.writes is None and failure.tool != "Bash":
        return False  # reading the file after a failed edit is not yet the recovery
    return _aim(later) == aim and (later.key != failure.key or changed)


def judge_self_correction(student: Behaviour, reference: Behaviour, engagement: float) -> Verdict:
    """The component.

    Args:
        engagement: in [0, 1], how much of the reference's work the student did at all: not having failed is no merit
            of one who did nothing.
    """
    if not reference.failures and not student.failures:
        return NOT_APPLICABLE
    left = open_failures(student) if student.failures else []
    expected_open = len(open_failures(reference))
    surplus = max(0, len(student.failures) - len(reference.failures))
    surplus_open = max(0, len(left) - expected_open)
    value = 1 / (1 + surplus + OPEN * surplus_open)
    losses = []
    if value < 1:
        mended = [call for call in student.failures if call not in left]
        losses = (
            [(OPEN, f"{call.name}: {shown(call)} failed and was not mended") for call in left[-surplus_open:]]
            if surplus_open
            else []
        )
        losses += (
            [(1.0, f"{call.name}: {shown(call)} failed, as the reference did not") for call in mended[-surplus:]]
            if surplus
            else []
        )
        losses = [(share * (1 - value) / sum(s for s, _ in losses), reason) for share, reason in losses]
    if engagement < 1:
        losses.append((value * (1 - engagement), "too little of the work was done to credit its lack of errors"))
    return Verdict(value * engagement, losses, student_only=not reference.failures)
