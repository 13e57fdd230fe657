"""Is the exported demo student the trained one? Logits, tokens and templates side by side, with n and 95 % intervals.

    python benchmarks/export_parity.py [RUN] [--texts N] [--strings N] [--conversations N] [--json]

RUN is a finished demo (`claude-trainer demo`; default runs/demo). Its newest adapter is exported anew to a temporary
folder, so that the exporter of this checkout is measured, and compared on the held-out conversations of its dataset:
- f16 against transformers with the adapter unmerged, in float32; q4_k_m against f16: share of positions with the same
  most likely token, and the largest difference of two logits. Positions of one conversation hang together, so the
  interval is one over conversations;
- transformers' reading of strings (all scripts, code, control tokens in content, random Unicode) against llama.cpp's,
  with the student's tokenizer and with a made-up one of Llama 3's size (128,256 tokens);
- a conversation as the trainer renders it, as llama-cpp-python renders the template inside the GGUF, and as the gateway
  sends it and `serve` reads it. About four minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from random_llama import write_llama

from claude_capture.data_root import resolve_data_root
from trainer.config import DatasetConfig, ExportConfig, load_config
from trainer.dataset import read_dataset
from trainer.errors import TrainerError
from trainer.export.doctor_corpus import conversations, random_conversations, strings
from trainer.export.export_records import ExportReport
from trainer.export.gguf_exporter import export_model, write_plain
from trainer.export.llama_runtime import GgufModel
from trainer.export.parity import compare, parity, tokenizer_parity
from trainer.export.student_prompt import StudentPrompt
from trainer.records import Message
from trainer.report.statistics import Interval, mean_interval, wilson_interval
from trainer.rollout.student_view import student_request
from trainer.serve.message_request import CountRequest, student_prompt_ids
from trainer.student.chat_format import EOT, render, template_text

F16_WANTED, QUANTIZED_WANTED = 0.999, 0.97
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
}
"""One layer under a vocabulary of Llama 3's size."""


def newest_student(run: Path) -> tuple[str, Path]:
    """Base and adapter of the newest PPO run, else of the newest SFT run.

    Raises:
        TrainerError: no finished run lies there.
    """
    finished = [folder for kind in ("sft", "ppo") for folder in sorted(run.glob(f"{kind}-*/result.json"), key=_age)]
    if not finished:
        raise TrainerError(f"{run}: no finished demo here; make one with `claude-trainer demo`, or name its folder")
    results = [json.loads(file.read_text("utf-8")) for file in finished]
    base = next(result["base"] for result in reversed(results) if "base" in result)
    return base, finished[-1].parent / "adapter"


def _age(file: Path) -> float:
    return file.stat().st_mtime


def shown(interval: Interval) -> dict[str, float | int]:
    """An interval as data."""
    return {"share": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}


def agreement(texts: list[str], measure: Callable[[str], Any]) -> dict[str, Any]:
    """Mean agreement per conversation with its interval, over all positions, and the largest logit difference."""
    found = [measure(text) for text in texts]
    positions = sum(report.tokens for report in found)
    same = sum(report.argmax_agreement * report.tokens for report in found)
    return {
        **shown(mean_interval([report.argmax_agreement for report in found])),
        "positions": positions,
        "of_positions": same / positions,
        "max_logit_diff": max(report.max_logit_diff for report in found),
        "kl": sum(report.kl * report.tokens for report in found) / positions,
    }


def logits(made: ExportReport, texts: list[str]) -> dict[str, Any]:
    """Both steps of the export, each against what it was made from."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(made.base, dtype="float32")
    model = PeftModel.from_pretrained(model, str(made.adapter)).eval()
    tokenizer = AutoTokenizer.from_pretrained(made.base)
    plain, quantized = Path(made.plain.path), Path(made.quantized.path)
    context = max(256, *(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts))
    f16 = agreement(texts, lambda text: parity(plain, model, tokenizer, [text]))
    with (
        GgufModel(plain, n_ctx=context, logits=True) as reference,
        GgufModel(quantized, n_ctx=context, logits=True) as candidate,
    ):
        q4 = agreement(texts, lambda text: compare(reference.logits, candidate.logits, [reference.encode(text)]))
    return {"f16": f16, "q4_k_m": q4}


def tokens(gguf: Path, folder: Path, count: int) -> dict[str, Any]:
    """Strings that transformers and llama.cpp read alike."""
    from transformers import AutoTokenizer

    with GgufModel(gguf, vocab_only=True) as llama:
        found = tokenizer_parity(llama, AutoTokenizer.from_pretrained(folder), strings(count))
    return {**shown(wilson_interval(found.equal, found.strings)), "first_difference": found.first_difference}


def request_of(messages: list[Message], tools: list[dict[str, Any]]) -> dict[str, Any]:
    """A conversation as a client of the Messages API sends it."""
    sent: list[dict[str, Any]] = []
    for message in messages[1:]:
        role = "assistant" if message["role"] == "assistant" else "user"
        text = [{"type": "text", "text": message["content"]}] if message["content"] else []
        blocks: list[dict[str, Any]] = text
        if message["role"] == "tool":
            blocks = [{"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": message["content"]}]
        for call in message.get("tool_calls", []):
            asked = call["function"]
            blocks.append({"type": "tool_use", "id": call["id"], "name": asked["name"], "input": asked["arguments"]})
        if sent and sent[-1]["role"] == role:
            sent[-1]["content"] += blocks
        else:
            sent.append({"role": role, "content": blocks})
    functions = [tool["function"] for tool in tools]
    offered = [{"name": f["name"], "description": f["description"], "input_schema": f["parameters"]} for f in functions]
    return {"model": "m", "max_tokens": 100, "system": "long", "messages": sent, "tools": offered}


def templates(gguf: Path, count: int) -> dict[str, Any]:
    """Conversations that come out as the trainer's bytes from the template in the file, and through the gateway."""
    with GgufModel(gguf, vocab_only=True) as llama:
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        template = llama.header("tokenizer.chat_template") or ""
        settings = {"template": template, "eos_token": EOT, "bos_token": "<|begin_of_text|>"}
        formatters = {asked: Jinja2ChatFormatter(**settings, add_generation_prompt=asked) for asked in (False, True)}
        sent = random_conversations(count)
        rendered = [(messages, tools, False) for messages, tools in conversations()]
        rendered += [(messages, tools, True) for messages, tools in sent]
        equal = sum(
            formatters[asked](messages=messages, tools=tools or None).prompt
            == render(messages, tools, generation_prompt=asked)
            for messages, tools, asked in rendered
        )
        through = 0
        for messages, tools in sent:
            config = DatasetConfig(
                system_prompt=str(messages[0]["content"]), digest_tokens=0, max_output_chars=1_000_000
            )
            prompt = StudentPrompt(config, {tool["function"]["name"]: tool for tool in tools})
            body = student_request(request_of(messages, tools), prompt, "m")
            ids = student_prompt_ids(body, CountRequest.model_validate(body), prompt, llama).ids
            through += llama.decode(ids) == render(messages, tools, generation_prompt=True)
    return {
        "file": shown(wilson_interval(equal, len(rendered))),
        "gateway": shown(wilson_interval(through, len(sent))),
        "same_bytes": template == template_text(),
    }


def measure(run: Path, texts: int, count: int, conversation_count: int) -> dict[str, Any]:
    """Everything, on an export made for it."""
    base, adapter = newest_student(run)
    config = load_config(run / "config.toml")
    root = resolve_data_root(config.data)
    dataset = (root if root.is_dir() else run / "world" / "data") / "datasets" / "bc_dataset.jsonl"
    samples = [sample for sample in read_dataset(dataset) if sample.split == "test"]
    if not samples:
        raise TrainerError(f"{dataset}: no held-out samples (split test)")
    chosen = samples[:: -(-len(samples) // texts)]
    with tempfile.TemporaryDirectory(prefix="export-parity-") as scratch:
        folder = Path(scratch)
        made = export_model(base, adapter, folder / "models", "student", config.export)
        wide = write_llama(folder / "wide", template_text(), head_dim=64, **SMALL)
        write_plain(wide, None, folder / "wide.gguf", "wide", ExportConfig())
        found: dict[str, Any] = {
            "run": str(run),
            "logits": logits(made, [render(sample.messages, sample.tools) for sample in chosen]),
            "tokenizer": {
                "student": tokens(Path(made.quantized.path), Path(made.base), count),
                "128,256 tokens": tokens(folder / "wide.gguf", wide, count),
            },
            "template": templates(Path(made.quantized.path), conversation_count),
        }
    verdicts = {
        f"f16 agreement, {F16_WANTED:.1%} wanted": found["logits"]["f16"]["of_positions"] >= F16_WANTED,
        f"q4_k_m agreement, {QUANTIZED_WANTED:.0%} wanted": found["logits"]["q4_k_m"]["of_positions"]
        >= QUANTIZED_WANTED,
        "tokenizer parity, 100 % wanted": all(side["share"] == 1 for side in found["tokenizer"].values()),
        "template parity, 100 % wanted": found["template"]["file"]["share"] == 1
        and found["template"]["gateway"]["share"] == 1,
    }
    return {**found, "verdicts": verdicts}


def _print(found: dict[str, Any]) -> None:
    def share(row: dict[str, Any], what: str) -> str:
        return f"{row['share']:.4%}  [{row['low']:.4%}, {row['high']:.4%}]  n = {row['n']:,} {what}"

    for name, against in (("f16", "transformers"), ("q4_k_m", "f16")):
        row = found["logits"][name]
        print(f"{name:<7} against {against:<13} same token {share(row, 'conversations')}")
        print(
            f"{'':<8}{row['of_positions']:.4%} of {row['positions']:,} positions; largest logit difference "
            f"{row['max_logit_diff']:.4f}, KL {row['kl']:.2e}"
        )
    for name, row in found["tokenizer"].items():
        print(f"tokenizer of {name:<15} {share(row, 'strings')}")
        if row["first_difference"]:
            print(f"        first difference: {row['first_difference'][:300]}")
    print(f"template in the file         {share(found['template']['file'], 'conversations')}")
    print(f"gateway and serve            {share(found['template']['gateway'], 'conversations')}")
    for name, met in found["verdicts"].items():
        print(f"{'met' if met else 'MISSED':<7} {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/demo"))
    parser.add_argument("--texts", type=int, default=100, help="held-out conversations for the logits")
    parser.add_argument("--strings", type=int, default=10_000)
    parser.add_argument("--conversations", type=int, default=1_000)
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()
    try:
        found = measure(arguments.run, arguments.texts, arguments.strings, arguments.conversations)
    except TrainerError as error:
        raise SystemExit(f"export_parity: {error}") from None
    if arguments.as_json:
        print(json.dumps(found))
    else:
        _print(found)


if __name__ == "__main__":
    main()
