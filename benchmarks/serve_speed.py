"""How fast `claude-trainer serve` answers, beside llama-cpp-python's own loop on the same file.

    python benchmarks/serve_speed.py [MODEL.gguf] [--prompt N] [--reply N] [--repeats N] [--billion] [--json]

Both sides are measured in turn in one run, over real HTTP against the real command, with one thread:
- time to the first token of a conversation's next turn (its beginning is in a slot), beside the same conversation cold:
  a reply of one token, from the first byte sent to the last received;
- wall time of a whole streamed turn, beside `Llama.generate` in this process with the same prompt tokens and the same
  number of new ones; who begins changes from round to round. The ratio is the geometric mean of the rounds' ratios with
  a 95 % t-interval. Beside it the ratio of processor time, which other programs on the machine disturb less.
Without a MODEL a random Llama is made (its size is printed): it never ends a turn, so that lengths are exact. With
`--billion` the turn is measured on a random Llama of 1.24 billion parameters in q4_k_m, too: what people serve has that
size or more. It takes 5 GB of memory and of disk and about five minutes on a quiet machine; the rest takes one.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trainer.config import DatasetConfig, ExportConfig
from trainer.export.export_records import Provenance
from trainer.export.llama_runtime import GgufModel
from trainer.export.student_prompt import KEY, StudentPrompt
from trainer.report.statistics import mean_interval
from trainer.serve.message_request import MessagesRequest, parse_request, student_prompt_ids

CONTEXT = 8192
WANTED_SPEEDUP, WANTED_OVERHEAD = 5.0, 0.05


def random_model(folder: Path, width: int, layers: int) -> Path:
    """A random Llama of `layers` layers, exported as GGUF; its end tokens are as unlikely as can be."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from trainer.export.gguf_exporter import export_model
    from trainer.student.chat_format import CONTROL_TOKENS
    from trainer.student.tiny_llama import train_tokenizer

    tokenizer = train_tokenizer([Path(__file__).read_text("utf-8")] * 4, 1024)
    torch.manual_seed(0)
    shape = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    heads = {"num_attention_heads": width // 64, "num_key_value_heads": width // 64}
    rope = {"rope_type": "default", "rope_theta": 500_000.0}
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=8192, rope_parameters=rope, tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, **shape, **heads,
    )  # fmt: skip
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        output, plain = model.lm_head.weight, tokenizer.encode("x", add_special_tokens=False)[0]
        for name in (*CONTROL_TOKENS, "<|eom_id|>", "<|end_of_text|>"):
            output[tokenizer.convert_tokens_to_ids(name)] = -output[plain]
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    provenance = Provenance(student_prompt=StudentPrompt(DatasetConfig(digest_tokens=0)).to_json())
    report = export_model(
        folder / "base", None, folder, "llama-claude-bench", ExportConfig(context_length=8192), provenance=provenance
    )
    print(f"random Llama: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, f16", file=sys.stderr)
    return Path(report.plain.path)


def billion_model(folder: Path) -> Path:
    """A random Llama of the shapes of Llama 3.2 1B in q4_k_m; that one of 128,256 tokens ends a turn is unlikely."""
    from random_llama import write_llama

    from trainer.export.gguf_exporter import export_model
    from trainer.student.chat_format import template_text

    base = write_llama(folder / "base", template_text())
    provenance = Provenance(student_prompt=StudentPrompt(DatasetConfig(digest_tokens=0)).to_json())
    config = ExportConfig(context_length=8192, quantization="q4_k_m")
    report = export_model(base, None, folder, "llama-claude-billion", config, provenance=provenance)
    shutil.rmtree(base)
    Path(report.plain.path).unlink()
    return Path(report.quantized.path)


@contextmanager
def serving(model: Path, context: int) -> Iterator[tuple[str, int, int]]:
    """The real command, with one slot and one thread: host, port, process."""
    command = [sys.executable, "-m", "trainer.cli", "serve", str(model), "--port", "0", "--slots", "1"]
    options = ["--threads", "1", "--context", str(context)]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = urlsplit(line.strip().partition("=")[2])
        try:
            yield str(address.hostname), int(address.port or 0), process.pid
        finally:
            process.terminate()


def request_of(turns: list[str], reply: int) -> dict[str, Any]:
    """A streamed request; the person and the model take turns."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return {"model": "m", "max_tokens": reply, "stream": True, "messages": messages}


def ask(connection: http.client.HTTPConnection, body: dict[str, Any]) -> tuple[float, dict[str, int]]:
    """(seconds to the end of the reply, usage)."""
    data = json.dumps(body)
    connection.close()  # the server may have done so: it keeps an idle connection for five seconds
    connection.connect()
    began = time.perf_counter()
    connection.request("POST", "/v1/messages", data)
    response = connection.getresponse()
    text = response.read()
    seconds = time.perf_counter() - began
    assert response.status == 200, text
    delta = text[text.rindex(b"event: message_delta") :].split(b"\n")[1]
    usage: dict[str, int] = json.loads(delta.removeprefix(b"data: "))["usage"]
    return seconds, usage


def words(count: int, seed: int) -> str:
    """Words of nothing, three to four tokens each in a small vocabulary."""
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("abcdefghij", k=4)) for _ in range(count))


@dataclass(frozen=True)
class Sides:
    """The same model twice: behind the real command, and in this process."""

    connection: http.client.HTTPConnection
    server: int
    """Its process."""
    llama: GgufModel
    prompt: StudentPrompt

    def ids(self, body: dict[str, Any]) -> list[int]:
        """What the student reads of a request."""
        _, asked = parse_request(json.dumps(body).encode(), MessagesRequest)
        return student_prompt_ids(body, asked, self.prompt, self.llama).ids


@contextmanager
def both_sides(model: Path) -> Iterator[Sides]:
    """Starts the one and loads the other, each with one thread and the same context."""
    with GgufModel(model, n_ctx=CONTEXT, threads=1) as llama:
        stored = llama.header(KEY)
        known = StudentPrompt.from_json(stored) if stored else StudentPrompt(DatasetConfig())
        context = min(CONTEXT, int(llama.header("llama.context_length") or CONTEXT))
        with serving(model, context) as (host, port, process):
            yield Sides(http.client.HTTPConnection(host, port, timeout=600), process, llama, known)


def processor_seconds(process: int | str) -> float:
    """Time that all threads of a process have run, as the kernel counts it."""
    tasks = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def first_token(sides: Sides, prompt: int, repeats: int) -> dict[str, float]:
    """A conversation's next turn, warm and cold; medians over rounds after one that is not counted."""
    rounds = []
    count = prompt * 100 // len(sides.llama.encode(words(100, 0)))
    for number in range(repeats + 1):
        results = [{"type": "tool_use", "id": "t", "name": "Bash", "input": {}}]
        follow = [{"type": "tool_result", "tool_use_id": "t", "content": "done " * 20}]
        opening = request_of([words(count, number)], 1)
        turn = request_of([words(count, number), results, follow], 1)  # type: ignore[list-item]
        ask(sides.connection, opening)
        warm, reused = ask(sides.connection, turn)
        ask(sides.connection, request_of([words(count, 10_000 + number)], 1))  # another conversation takes the slot
        cold, fresh = ask(sides.connection, turn)
        row = {"cold": cold, "warm": warm, "reused": reused["cache_read_input_tokens"]}
        rounds.append(row | {"prompt": sum(v for k, v in fresh.items() if "input" in k), "speedup": cold / warm})
    return {name: statistics.median(row[name] for row in rounds[1:]) for name in rounds[0]}


def whole_turn(sides: Sides, reply: int, repeats: int) -> dict[str, float]:
    """A turn over HTTP and in this process; medians over rounds after one that is not counted."""
    rounds = []
    primer = request_of(["x"], 1)
    for number in range(repeats + 1):
        task = request_of([words(40, number)], reply)
        ids = sides.ids(task)
        seconds: dict[str, float] = {}
        busy: dict[str, float] = {}
        written: dict[str, int] = {}
        ask(sides.connection, primer)  # both sides hold the system prompt and no more
        sides.llama.generate(sides.ids(primer), max_new_tokens=1)
        for side in ("served", "own") if number % 2 else ("own", "served"):
            process = "self" if side == "own" else sides.server
            busy[side] = -processor_seconds(process)
            began = time.perf_counter()
            if side == "own":
                written[side] = len(sides.llama.generate(ids, max_new_tokens=reply))
                seconds[side] = time.perf_counter() - began
            else:
                seconds[side], usage = ask(sides.connection, task)
                written[side] = usage["output_tokens"]
            busy[side] += processor_seconds(process)
        if written["own"] != written["served"]:
            raise SystemExit(f"serve_speed: the sides wrote {written} tokens, their times cannot be compared")
        rounds.append(seconds | {"reply": written["own"], "busy": busy["served"] / busy["own"]})
    rounds = rounds[1:]
    found = {name: statistics.median(row[name] for row in rounds) for name in ("served", "own", "reply")}
    for name, ratios in (
        ("overhead", [row["served"] / row["own"] for row in rounds]),
        ("processor_overhead", [row["busy"] for row in rounds]),
    ):
        mean = mean_interval([math.log(ratio) for ratio in ratios], method="t")
        found |= {name + end: math.exp(v) - 1 for end, v in (("", mean.mean), ("_low", mean.low), ("_high", mean.high))}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, help="GGUF of `claude-trainer export`; default: a random one")
    parser.add_argument("--prompt", type=int, default=3000, help="tokens of the conversation")
    parser.add_argument("--reply", type=int, default=200, help="tokens of the turn that is timed as a whole")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--width", type=int, default=512, help="width of the random model")
    parser.add_argument("--layers", type=int, default=8, help="layers of the random model")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--billion", action="store_true", help="measure a turn of a 1.24 B model, too")
    parser.add_argument("--billion-reply", type=int, default=64, help="tokens of that turn")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        model = options.model or random_model(Path(scratch), options.width, options.layers)
        with both_sides(model) as sides:
            found[model.name] = whole_turn(sides, options.reply, options.repeats)
            first = first_token(sides, options.prompt, options.repeats)
        if options.billion:
            billion = billion_model(Path(scratch))
            with both_sides(billion) as sides:
                found[billion.name] = whole_turn(sides, options.billion_reply, options.repeats)
    if options.json:
        print(json.dumps({"first_token": first, "turn": found}))
        return
    print(f"one thread, one slot, medians of {options.repeats}")
    print(
        f"{model.name}: first token, {first['prompt']:,.0f} tokens of prompt: cold {1000 * first['cold']:.1f} ms, with "
        f"{first['reused']:,.0f} of them in the slot {1000 * first['warm']:.1f} ms: {first['speedup']:.1f} times "
        f"faster (wanted {WANTED_SPEEDUP:g}) {'PASS' if first['speedup'] >= WANTED_SPEEDUP else 'MISS'}"
    )
    for name, turn in found.items():
        print(
            f"{name}: a turn of {turn['reply']:,.0f} tokens: {1000 * turn['served']:.1f} ms over HTTP, "
            f"{1000 * turn['own']:.1f} ms in llama-cpp-python's own loop: {turn['overhead']:+.1%} "
            f"[{turn['overhead_low']:+.1%}, {turn['overhead_high']:+.1%}] "
            f"(wanted below {WANTED_OVERHEAD:.0%}) {'PASS' if turn['overhead'] < WANTED_OVERHEAD else 'MISS'}; "
            f"processor time {turn['processor_overhead']:+.1%} "
            f"[{turn['processor_overhead_low']:+.1%}, {turn['processor_overhead_high']:+.1%}]"
        )


if __name__ == "__main__":
    main()
