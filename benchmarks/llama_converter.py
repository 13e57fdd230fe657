"""llama.cpp's own converters, as the peer of the exporter: fetched once, run in a process of their own.

    python benchmarks/llama_converter.py hf CHECKPOINT OUTPUT.gguf f16|bf16
    python benchmarks/llama_converter.py lora ADAPTER BASE OUTPUT.gguf

They come with the sdist of llama-cpp-python and are kept under ~/.cache/claude-capture/peers. They run as they are,
with two answers given in their place. They tell a tokenizer by the hash of the ids that it gives a test string, and
would refuse a vocabulary made on the spot: they are told that it is `llama-bpe`, which is what they find for Llama 3.
And they look for a SentencePiece model first, with a package that is not installed here: they are told that there is
none. The last line on stdout is JSON: seconds and peak memory (MB) of the process.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import resource
import runpy
import shutil
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from trainer.export.install_llama_cpp import download_source

PARTS = ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion/", "gguf-py/")


def converter_source() -> Path:
    """The folder of the converters of the installed llama.cpp version; downloaded where it is not in the cache."""
    version = importlib.metadata.version("llama-cpp-python")
    folder = Path.home() / ".cache" / "claude-capture" / "peers" / f"llama.cpp-{version}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        top = Path(scratch)
        with tarfile.open(download_source(version, top)) as archive:
            vendored = f"llama_cpp_python-{version}/vendor/llama.cpp/"
            wanted = [member for member in archive if member.name.removeprefix(vendored).startswith(PARTS)]
            for member in wanted:
                archive.extract(member, top, filter="data")
        shutil.move(top / vendored, folder)
    return folder


def command(kind: str, *arguments: Path | str) -> list[str]:
    """The command line that runs a converter in a process of its own."""
    return [sys.executable, str(Path(__file__).resolve()), kind, *map(str, arguments)]


def peak_megabytes() -> float:
    """Highest resident memory of this process; Linux counts in KB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _answer_in_their_place() -> None:
    text_model: Any = importlib.import_module("conversion.base").TextModel

    def no_sentencepiece(_: Any) -> None:
        raise FileNotFoundError

    text_model.get_vocab_base_pre = lambda _self, _tokenizer: "llama-bpe"
    text_model._set_vocab_sentencepiece = no_sentencepiece


def _run(kind: str, arguments: list[str]) -> None:
    source = converter_source()
    sys.path.insert(0, str(source))
    sys.path.insert(1, str(source / "gguf-py"))
    _answer_in_their_place()
    if kind == "hf":
        checkpoint, output, float_type = arguments
        sys.argv = ["convert_hf_to_gguf.py", checkpoint, "--outfile", output, "--outtype", float_type]
        importlib.import_module("convert_hf_to_gguf").main()
    else:
        adapter, base, output = arguments
        sys.argv = ["convert_lora_to_gguf.py", adapter, "--base", base, "--outfile", output]
        runpy.run_path(str(source / "convert_lora_to_gguf.py"), run_name="__main__")


if __name__ == "__main__":
    started = time.monotonic()
    _run(sys.argv[1], sys.argv[2:])
    print(json.dumps({"seconds": time.monotonic() - started, "peak_mb": peak_megabytes()}))
