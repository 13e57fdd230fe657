"""Tokens that another program drew: how far its probabilities are from the trainer's, and what is done about it.

A server computes the same student with other kernels, in another batch, often in fewer bits, so it draws from a policy
μ that is not quite the trainer's π. Each token's policy loss is multiplied by min(π/μ, CAP), π being the student before
the update: truncated importance sampling (Ionides 2008, "Truncated Importance Sampling"; for this mismatch Yao et al.
2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training"). The mean of π/μ is 1 where all is well;
the cap keeps a few tokens that μ found unlikely from being all that is learned from, at the price of a small bias.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.errors import TrainerError

CAP = 2.0
"""Largest weight of a token."""
SAME_STUDENT = 0.5
"""Nats: a mean |log π - log μ| above this is no rounding; the server holds other weights or draws otherwise."""
Floats = npt.NDArray[np.float64]


class GenerationServerError(TrainerError):
    """The server cannot be used, or gave an answer that cannot be learned from."""


def truncated_ratios(log_probs: Floats, sampled: Floats) -> tuple[Floats, dict[str, Any]]:
    """Weights of tokens and what to report of them.

    Args:
        log_probs: nats, under the trainer's student before the update. Shape [written tokens], not empty.
        sampled: the same under the policy that drew the tokens, as its server says.

    Returns:
        min(π/μ, CAP), and what to report: `kl`, the estimate of KL(μ‖π) in nats per token (k3); `difference`, the mean
        of |log π - log μ|; `ratio`, the mean of π/μ; `truncated`, the share of tokens above the cap.

    Raises:
        GenerationServerError: the two are not the same student.
    """
    log_ratio = log_probs - sampled
    difference = float(np.abs(log_ratio).mean())
    if difference > SAME_STUDENT:
        raise GenerationServerError(
            f"the generation server's log-probabilities are {difference:.2f} nats per token from the student's: it "
            "serves another base, or a temperature other than 1 without --logprobs-mode processed_logprobs"
        )
    ratio = np.exp(np.minimum(log_ratio, 50.0))
    report = {
        "kl": float((ratio - 1 - log_ratio).mean()),
        "difference": difference,
        "ratio": float(ratio.mean()),
        "truncated": float((ratio > CAP).mean()),
    }
    return np.minimum(ratio, CAP), report
