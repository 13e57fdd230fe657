"""Whether the base can be had: a folder, the hub's cache, or the hub itself, and whether its licence was accepted."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer.student.base_folder import LAYOUT, lacking_files

WHERE = "https://huggingface.co"


@dataclass(frozen=True)
class BaseAccess:
    """`shape` is the base's config.json, where it could be read; `fetch` is whether weights are still to be loaded."""

    state: Literal["ready", "missing"]
    found: str
    next: str = ""
    shape: dict[str, Any] | None = None
    fetch: bool = False


def base_access(base: str) -> BaseAccess:
    """Looks at a base without loading its weights; asks the hub only about one that is not here.

    Args:
        base: a hub id or a folder.
    """
    folder = Path(base)
    if folder.is_dir():
        lacking = lacking_files(folder)
        if lacking:
            return BaseAccess("missing", f"{folder} lacks {', '.join(lacking)}", f"put {LAYOUT} there")
        try:
            return BaseAccess("ready", "local folder", shape=_config(folder))
        except ValueError:
            return BaseAccess("missing", f"{folder / 'config.json'} is not JSON", f"put {LAYOUT} there")
    if base.startswith((".", "/", "~")) or base.count("/") != 1:
        return BaseAccess("missing", f"no folder {base}", f"make it, with {LAYOUT}, or give a hub id: owner/name")
    return _on_hub(base)


def _config(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return values


def _on_hub(base: str) -> BaseAccess:
    from httpx2 import HTTPError
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    local = f"or give base_model a local folder with {LAYOUT}"
    try:
        cached = Path(snapshot_download(base, local_files_only=True, allow_patterns=["*.json", "*.safetensors"]))
        if not lacking_files(cached):
            return BaseAccess("ready", f"in the hub's cache, {cached}", shape=_config(cached))
    except (LocalEntryNotFoundError, ValueError):
        pass
    if constants.HF_HUB_OFFLINE:
        return BaseAccess("missing", "not in the hub's cache, and HF_HUB_OFFLINE is set", f"unset it, {local}")
    endpoint = os.environ.get("HF_ENDPOINT") or WHERE
    try:
        HfApi(endpoint=endpoint).auth_check(base)
        config = hf_hub_download(base, "config.json", endpoint=endpoint)
    except GatedRepoError:
        return BaseAccess(
            "missing",
            "the hub has it, but its licence was not accepted with this login",
            f"accept it at {endpoint}/{base}, then `hf auth login`, {local}",
        )
    except RepositoryNotFoundError:
        return BaseAccess("missing", "the hub knows no such model, or hides it", f"correct base_model, {local}")
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        return BaseAccess(
            "missing", f"the hub cannot be reached ({type(error).__name__})", f"connect this machine, {local}"
        )
    return BaseAccess("ready", "on the hub, licence accepted", shape=_config(Path(config).parent), fetch=True)
