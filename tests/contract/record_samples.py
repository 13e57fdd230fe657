"""Makes data/samples/: two sessions of the demo's teacher, recorded and taken through import and dataset build.

    python tests/contract/record_samples.py

Run it when the schema has got a new version, after copying config.toml into the new folder: the samples of older
versions stay and must still be read. Everything in them is made by this repository; paths of the machine become
/home/dev.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from claude_capture.claude_trace_schema import SCHEMA_VERSION
from claude_capture.ingest import import_sessions
from claude_capture.trace_storage import TraceStore
from trainer.config import load_config
from trainer.dataset.behavioral_cloning_builder import build_dataset
from trainer.demo.session_recorder import project_slug
from trainer.demo.world import headline_episode, make_episodes, record_sessions

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "data" / "samples" / f"v{SCHEMA_VERSION}"
HOME = "/home/dev"


def copy_scrubbed(source: Path, target: Path, home: str) -> None:
    """Copies a text file; the folder `home`, and the name that Claude Code makes of it, become HOME's."""
    text = source.read_text("utf-8")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text.replace(home, HOME).replace(project_slug(home), project_slug(HOME)), "utf-8")


def record(scratch: Path) -> None:
    """Records a training session and the held-out headline question; events and session files go to FOLDER."""
    edits = [episode for episode in make_episodes(60, False, 0) if episode.family == "conf"]
    episodes = [max(edits, key=lambda episode: len(episode.calls))]  # one whose first attempt fails
    data, projects = scratch / "demo" / "data", scratch / "demo" / "claude" / "projects"
    record_sessions([*episodes, headline_episode(0)], data, projects)
    for kind, files in (("events", data.glob("events/*.jsonl")), ("sessions", projects.glob("*/*.jsonl"))):
        for file in files:
            copy_scrubbed(file, FOLDER / kind / file.name, str(scratch))


def build(scratch: Path) -> None:
    """Events and session files of FOLDER → traces.jsonl and bc_dataset.jsonl beside them."""
    data = scratch / "demo" / "data"
    for kind in ("events", "sessions"):
        shutil.copytree(FOLDER / kind, data / kind)
    import_sessions([data / "sessions"], data)
    store = TraceStore.of(data)
    copy_scrubbed(store.path, FOLDER / "traces.jsonl", str(scratch))
    samples = scratch / "bc_dataset.jsonl"
    build_dataset(TraceStore(FOLDER / "traces.jsonl").load(), load_config(FOLDER / "config.toml"), samples)
    copy_scrubbed(samples, FOLDER / "bc_dataset.jsonl", str(scratch))


def main() -> None:
    """Replaces the samples of this schema version; config.toml stays."""
    for kind in ("events", "sessions"):
        shutil.rmtree(FOLDER / kind, ignore_errors=True)
    for step in (record, build):
        with tempfile.TemporaryDirectory() as folder:
            step(Path(folder).resolve())


if __name__ == "__main__":
    main()
