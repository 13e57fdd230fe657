"""Is this GGUF fit for service? One named check for every known way in which an exported Llama goes wrong.

The file is read twice over: as data, and by llama.cpp in a process of its own, so that a file that makes llama.cpp
abort ends in a failed check and not in a crash.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.errors import TrainerError
from trainer.export.doctor_corpus import CONTROL_TEXTS, PIECES, TOOLS, conversations, strings
from trainer.export.export_records import METADATA_PREFIX, TRIAL_CHECKS, Check, DoctorReport, Progress, Trial, not_run
from trainer.export.gguf_file import GgufFile
from trainer.export.llama_library import llama_library
from trainer.export.llama_runtime import GgufModel
from trainer.export.llama_server import check_llama_server
from trainer.export.llama_vocabulary import CONTROL_IDS, PRE_TOKENIZER, TokenType, independent_tokenizer
from trainer.export.parity import tokenizer_parity
from trainer.student.chat_format import EOT, encode, escape, render, template_text

if TYPE_CHECKING:
    from trainer.export.trial import HeldOut

PROBE_SECONDS = 600
TENSORS_PER_LAYER = 9
"""Two norms, q, k, v and output of the attention, gate, up and down of the feed-forward part."""


def _passed(name: str, detail: str) -> Check:
    return Check(name=name, status="passed", detail=detail)


def _failed(name: str, detail: str, advice: str) -> Check:
    return Check(name=name, status="failed", detail=detail, advice=advice)


def _judged(name: str, good: bool, detail: str, advice: str) -> Check:
    return _passed(name, detail) if good else _failed(name, detail, advice)


def check_architecture(file: GgufFile) -> Check:
    """A Llama whose numbers fit each other."""
    kind = file.get("general.architecture")
    if kind != "llama":
        return _failed("architecture", f"{kind!r}", "only Llama models are exported and served by this project")
    width, heads = file.get("llama.embedding_length"), file.get("llama.attention.head_count")
    kv_heads, eps = file.get("llama.attention.head_count_kv"), file.get("llama.attention.layer_norm_rms_epsilon")
    embedding = file.tensor("token_embd.weight")
    rows = int(embedding.shape[1]) if embedding is not None else 0
    tokens = len(file.get("tokenizer.ggml.tokens") or [])
    blocks = file.get("llama.block_count")
    per_layer = Counter(tensor.name.split(".")[1] for tensor in file.tensors if tensor.name.startswith("blk."))
    found = len(per_layer)
    whole = blocks == found and set(per_layer.values()) == {TENSORS_PER_LAYER}
    good = bool(width and heads and kv_heads and eps and heads % kv_heads == 0 and rows == tokens and whole)
    detail = f"{found} of {blocks} layers, {heads} heads, {kv_heads} KV heads, {rows} embeddings, {tokens} tokens"
    return _judged("architecture", good, detail, "the header does not fit the tensors; export again from the base")


def check_rope_freqs(file: GgufFile) -> Check:
    """`rope_freqs.weight` is there exactly where the base scales RoPE as Llama 3.1 does."""
    tensor = file.tensor("rope_freqs.weight")
    stated = file.get(f"{METADATA_PREFIX}rope_type")
    long_context = (file.get("llama.context_length") or 0) > 8192
    needed = stated == "llama3" or (stated is None and long_context)
    advice = "export again with a current `claude-trainer export`; without it long contexts degrade"
    if tensor is None:
        detail = "missing, but the base scales RoPE as Llama 3.1 does" if needed else "not needed: RoPE is not scaled"
        return _judged("rope_freqs", not needed, detail, advice)
    values = np.asarray(tensor.data, dtype=np.float32).ravel()
    half = (file.get("llama.rope.dimension_count") or 0) // 2
    good = tensor.tensor_type.name == "F32" and len(values) == half and bool(np.isfinite(values).all())
    good = good and bool((values >= 1).all())
    span = f"{len(values)} {tensor.tensor_type.name} factors, {values.min():g} to {values.max():g}"
    return _judged("rope_freqs", good, span, advice)


def check_output_weight(file: GgufFile) -> Check:
    """Either its own output matrix, or the tied embedding: both together or none at all is a broken file."""
    own = file.tensor("output.weight") is not None
    embedded = file.tensor("token_embd.weight") is not None
    detail = "output.weight of its own" if own else "tied to the embedding: no output.weight"
    return _judged("output_weight", embedded, detail, "token_embd.weight is missing; export again")


def check_weights(file: GgufFile) -> Check:
    """No NaN or infinity in what can be looked at directly: float tensors."""
    broken = [
        tensor.name
        for tensor in file.tensors
        if tensor.tensor_type.name in ("F32", "F16") and not bool(np.isfinite(tensor.data).all())
    ]
    detail = f"{len(file.tensors)} tensors, {broken[0]} is not finite" if broken else f"{len(file.tensors)} tensors"
    return _judged("weights", not broken, detail, "training diverged or the file is damaged; train or export again")


def check_quantization(file: GgufFile) -> Check:
    """The types of the matrices are what the header promises, and K-quants had rows to work on."""
    kinds = Counter(tensor.tensor_type.name for tensor in file.tensors if len(tensor.shape) > 1)
    number = file.get("general.file_type")
    library = llama_library()
    label = library.llama_ftype_name(number).decode() if number is not None else "?"
    family = label.removeprefix("all ").split(" ")[0].split("_")[0]
    detail = f"{label}: " + ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common())
    if not any(kind.startswith(family) for kind in kinds):
        return _failed("quantization", detail, "no tensor has the type of the header; quantise again from f16")
    odd = [tensor.name for tensor in file.tensors if len(tensor.shape) > 1 and int(tensor.shape[0]) % 256]
    if "_K" in label and odd:
        advice = "K-quants need rows of a multiple of 256: llama.cpp took a larger type there"
        return Check(name="quantization", status="warning", detail=f"{detail}; {odd[0]} does not fit", advice=advice)
    return _passed("quantization", detail)


def check_pre_tokenizer(file: GgufFile) -> Check:
    """gpt2-style BPE with the split that llama.cpp calls llama-bpe."""
    model, split = file.get("tokenizer.ggml.model"), file.get("tokenizer.ggml.pre")
    merges = len(file.get("tokenizer.ggml.merges") or [])
    good = model == "gpt2" and split in (PRE_TOKENIZER, "llama3", "llama-v3") and merges > 0
    advice = f"tokenizer.ggml.model must be gpt2 and tokenizer.ggml.pre {PRE_TOKENIZER}; export again"
    return _judged("pre_tokenizer", good, f"{model}, {split}, {merges} merges", advice)


def check_control_tokens(file: GgufFile) -> Check:
    """Every control token is of type CONTROL: as ordinary text it would never end a turn."""
    vocabulary = file.vocabulary()
    wanted = {*CONTROL_IDS.values(), "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"}
    control = {
        token for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True) if kind == TokenType.CONTROL
    }
    missing = sorted(wanted - control)
    detail = f"{missing[0]} is not a control token" if missing else f"{len(control)} control tokens"
    return _judged("control_tokens", not missing, detail, "use a base with Llama 3.1's tokenizer, unchanged")


def check_ends(file: GgufFile) -> list[Check]:
    """EOS is the end of a turn; EOT and EOM are named."""
    vocabulary = file.vocabulary()
    checks = []
    for role in ("eos", "eot", "eom"):
        index = vocabulary.roles.get(role)
        found = vocabulary.tokens[index] if index is not None and 0 <= index < len(vocabulary.tokens) else None
        wanted = CONTROL_IDS[role]
        advice = f"tokenizer.ggml.{role}_token_id must be {wanted}, or generation does not stop; export again"
        checks.append(_judged(role, found == wanted, f"{found} ({index})", advice))
    return checks


def check_template(file: GgufFile) -> Check:
    """The chat template has the very bytes that the student was trained with."""
    found, ours = file.get("tokenizer.chat_template"), template_text()
    if found == ours:
        return _passed("chat_template", f"{len(ours.encode())} bytes, equal to the trainer's")
    detail = "missing" if found is None else f"{len(found.encode())} bytes, the trainer's has {len(ours.encode())}"
    return _failed("chat_template", detail, "the model is asked in another format than it learned; export again")


def check_bos(file: GgufFile, llama: GgufModel) -> Check:
    """A rendered conversation, read the way servers read it, starts with exactly one BOS."""
    messages, tools = conversations()[2]
    ids = llama.encode(render(messages, tools), add_special_tokens=True)
    bos = file.vocabulary().roles.get("bos")
    count = ids.count(bos) if bos is not None else 0
    good = count == 1 and ids[0] == bos and file.get("tokenizer.ggml.add_bos_token") is False
    detail = f"{count} BOS in a conversation, add_bos_token is {file.get('tokenizer.ggml.add_bos_token')}"
    return _judged("bos", good, detail, "the template writes the BOS: add_bos_token must be false; export again")


def check_template_rendering(file: GgufFile) -> Check:
    """The template inside the file, run by llama-cpp-python, renders what the trainer renders."""
    template = file.get("tokenizer.chat_template")
    vocabulary = file.vocabulary()
    bos = vocabulary.tokens[vocabulary.roles["bos"]] if "bos" in vocabulary.roles else ""
    llama_library()
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    every = conversations()
    advice = "the template differs from trainer/student/chat_template.jinja; export again"
    try:
        formatter = Jinja2ChatFormatter(template=template, eos_token=EOT, bos_token=bos, add_generation_prompt=False)
        for messages, tools in every:
            found = formatter(messages=messages, tools=tools or None).prompt
            if found != render(messages, tools):
                return _failed("template_rendering", f"differs for {messages[1]['content'][:40]!r}", advice)
    except Exception as error:  # any template can be in a foreign file, and Jinja raises whatever it likes
        reason = str(error).split("\n")[0]
        return _failed("template_rendering", f"fails: {reason}", advice)
    return _passed("template_rendering", f"{len(every)} conversations equal to the trainer's bytes")


def check_tokenizer(file: GgufFile, llama: GgufModel, tokenizer: Any | None, count: int) -> Check:
    """llama.cpp reads every string as the trainer's tokenizer (or one rebuilt from the file) does."""
    other = tokenizer if tokenizer is not None else independent_tokenizer(file.vocabulary())
    result = tokenizer_parity(llama, other, strings(count))
    against = "the trainer's tokenizer" if tokenizer is not None else "Hugging Face tokenizers on the same vocabulary"
    detail = f"{result.equal} of {result.strings} strings as {against}"
    if result.first_difference is not None:
        detail += f"; first difference: {result.first_difference[:200]}"
    advice = (
        "the model would read other tokens in service than in training; export from the tokenizer it was trained with"
    )
    return _judged("tokenizer_parity", result.equal == result.strings, detail, advice)


def check_forgery(file: GgufFile, llama: GgufModel) -> Check:
    """No content can write a control token: escaped as the template escapes it, it stays text."""
    vocabulary = file.vocabulary()
    control = {index for index, kind in enumerate(vocabulary.types) if kind == TokenType.CONTROL}
    forged = [text for text in CONTROL_TEXTS + PIECES if control & set(llama.encode(escape(text)))]
    detail = f"{forged[0]!r} becomes a control token" if forged else f"{len(CONTROL_TEXTS + PIECES)} contents stay text"
    return _judged(
        "forged_tokens", not forged, detail, "a control token does not start with '<|'; the base is not Llama 3.1"
    )


def check_served_bytes(llama: GgufModel) -> Check:
    """The tokens that the gateway feeds llama.cpp read back as the very bytes that the trainer renders."""
    every = conversations()
    for messages, tools in every:
        if llama.decode(encode(llama, messages, tools).ids) != render(messages, tools):
            detail = f"differs for {messages[1]['content'][:40]!r}"
            return _failed("served_bytes", detail, "the vocabulary loses bytes: use a base with Llama 3.1's tokenizer")
    return _passed("served_bytes", f"{len(every)} conversations reach the model as the trainer's bytes")


def check_provenance(file: GgufFile) -> Check:
    """Whoever finds the file can tell what it is: licence, dataset, and the prompt it was trained to read."""
    wanted = {
        "general.license": "--licence",
        f"{METADATA_PREFIX}dataset_hash": "--dataset",
        f"{METADATA_PREFIX}student_prompt": "--dataset",
    }
    missing = [key for key in wanted if not file.get(key)]
    if not missing:
        return _passed("provenance", f"licence {file.get('general.license')}, dataset {file.get(list(wanted)[1])}")
    advice = f"export again with {' and '.join(dict.fromkeys(wanted[key] for key in missing))}"
    return Check(name="provenance", status="warning", detail=f"missing: {', '.join(missing)}", advice=advice)


def check_loads(path: Path) -> Check:
    """llama.cpp loads the file in a process of its own, generates, and its logits are finite."""
    advice = "see the message of llama.cpp; export again, or update llama-cpp-python"
    command = [sys.executable, "-c", "from trainer.export.doctor import probe; probe()", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return _failed("loads_and_generates", f"no answer within {PROBE_SECONDS} s", advice)
    try:
        answer = json.loads(done.stdout.decode("utf-8", "replace").splitlines()[-1])
    except (ValueError, IndexError):
        words = done.stderr.decode("utf-8", "replace").strip().split("\n")
        return _failed(
            "loads_and_generates", f"llama.cpp died with status {done.returncode}: {words[-1][:200]}", advice
        )
    if "error" in answer:
        return _failed("loads_and_generates", answer["error"], advice)
    detail = f"{answer['tokens']} tokens, stop token {'reached' if answer['ended'] else 'not reached'}"
    return _judged("loads_and_generates", answer["finite"], f"{detail}: {answer['text'][:80]!r}", advice)


def probe() -> None:
    """Body of the process that `check_loads` starts: prints one JSON object."""
    try:
        with GgufModel(Path(sys.argv[1]), n_ctx=1024, logits=True) as llama:
            messages, tools = conversations()[0][0][:2], TOOLS
            prompt = encode(llama, messages, tools, generation_prompt=True).ids
            written = llama.generate(prompt, max_new_tokens=24)
            finite = bool(np.isfinite(llama.logits(prompt)).all())
            answer = {
                "tokens": len(written),
                "ended": llama.ends_generation(written[-1]),
                "text": llama.decode(written),
                "finite": finite,
            }
    except TrainerError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))


def _guarded(name: str, check: Callable[[], Check | list[Check]]) -> list[Check]:
    """A check that cannot be made at all, because the file lacks what it looks at or holds nonsense, has failed."""
    try:
        found = check()
    except Exception as error:  # a damaged file can break every assumption of a reader
        reason = str(error).split("\n")[0] or type(error).__name__
        return [_failed(name, f"cannot be checked: {reason}", "the file is damaged; export again")]
    return found if isinstance(found, list) else [found]


def _vocabulary_checks(path: Path, file: GgufFile, tokenizer: Any | None, count: int) -> list[Check]:
    """What llama.cpp makes of text, without the weights."""
    with GgufModel(path, vocab_only=True) as llama:
        return [
            *_guarded("bos", lambda: check_bos(file, llama)),
            *_guarded("tokenizer_parity", lambda: check_tokenizer(file, llama, tokenizer, count)),
            *_guarded("forged_tokens", lambda: check_forgery(file, llama)),
            *_guarded("served_bytes", lambda: check_served_bytes(llama)),
        ]


def _trial_checks(path: Path, heldout: HeldOut, trial: Trial, progress: Progress | None) -> list[Check]:
    """What the held-out prompts tell; TRIAL_CHECKS in order."""
    from trainer.export.trial import behaviour_check, context_check, logit_checks

    return [
        *_guarded("logits_plain", lambda: logit_checks(path, heldout, trial)),
        *_guarded("context", lambda: context_check(path, heldout)),
        *_guarded("behaviour", lambda: behaviour_check(path, heldout, trial, progress)),
    ]


def examine(
    path: Path,
    *,
    tokenizer: Any | None = None,
    strings_compared: int = 2000,
    heldout: HeldOut | None = None,
    progress: Progress | None = None,
) -> DoctorReport:
    """Makes every check.

    Args:
        tokenizer: the transformers tokenizer that the model was trained with; None compares llama.cpp with a
            tokenizer rebuilt from the file's own vocabulary.
        strings_compared: size of the corpus for the tokenizers.
        heldout: the user's held-out prompts; without them the checks that need them are named as not run.

    Raises:
        TrainerError: the file is missing, no GGUF, or cut off.
    """
    file = GgufFile(path)
    checks: list[Check] = []
    on_file: dict[str, Callable[[], Check | list[Check]]] = {
        "architecture": lambda: check_architecture(file),
        "rope_freqs": lambda: check_rope_freqs(file),
        "output_weight": lambda: check_output_weight(file),
        "weights": lambda: check_weights(file),
        "quantization": lambda: check_quantization(file),
        "pre_tokenizer": lambda: check_pre_tokenizer(file),
        "control_tokens": lambda: check_control_tokens(file),
        "eos": lambda: check_ends(file),
        "provenance": lambda: check_provenance(file),
        "chat_template": lambda: check_template(file),
        "template_rendering": lambda: check_template_rendering(file),
        "loads_and_generates": lambda: check_loads(path),
    }
    for name, check in on_file.items():
        checks += _guarded(name, check)
    trial: Trial | None = None
    if checks[-1].status == "passed":
        checks += _guarded("vocabulary", lambda: _vocabulary_checks(path, file, tokenizer, strings_compared))
        checks += _guarded("template_in_llama_server", lambda: check_llama_server(path))
        if heldout is not None and heldout.cases and heldout.texts:
            trial = Trial()
            checks += _trial_checks(path, heldout, trial, progress)
        else:
            lacks = "needs the held-out prompts: give --config"
            if heldout is not None:
                lacks = "nothing is held out: see dataset.test_fraction, dataset.test_projects, export.trial_prompts"
            checks += [not_run(name, lacks) for name in TRIAL_CHECKS]
    healthy = all(check.status != "failed" for check in checks)
    return DoctorReport(path=str(path), healthy=healthy, checks=checks, trial=trial)
