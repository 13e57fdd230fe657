"""JSON objects from files that other programs wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        TrainerError: missing, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise TrainerError(f"{path}: missing; a Hugging Face folder is expected here") from None
    except ValueError as error:
        raise TrainerError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise TrainerError(f"{path}: a JSON object is expected")
    return value
