"""Finds and loads the model that a student starts from: the embedded tiny Llama, a hub id or a local folder."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging

from trainer.config import StudentConfig
from trainer.errors import TrainerError
from trainer.processes import splits_weights
from trainer.student.base_folder import LAYOUT
from trainer.student.chat_format import CONTROL_TOKENS, EOT, template_text
from trainer.student.format_checks import check_tokenizer

logging.disable_progress_bar()  # the stages have their own


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/claude-capture/bases`, else below `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "claude-capture" / "bases"


def resolve_base(student: StudentConfig, texts: list[str] | None = None, progress: Any = None) -> str:
    """The folder or hub id behind `student.base_model`.

    Args:
        texts: rendered training conversations; the tiny base trains its tokenizer on them when it is first made.

    Raises:
        TrainerError: a local folder without a model, or a tiny base asked for without texts.
    """
    if student.base_model == "tiny":
        from trainer.student.tiny_llama import make_tiny_base

        if not texts:
            raise TrainerError("base_model 'tiny' is made from the training split; build the dataset first")
        return str(make_tiny_base(student.tiny, texts, cache_folder(), student.seed, progress))
    folder = Path(student.base_model)
    if folder.is_dir() and not (folder / "config.json").exists():
        raise TrainerError(f"{folder}: no model there; a base folder holds {LAYOUT}")
    if not folder.is_dir() and student.base_model.startswith((".", "/", "~")):
        raise TrainerError(f"{folder}: no such folder; base_model is 'tiny', a hub id or a folder with {LAYOUT}")
    return student.base_model


def load_tokenizer(base: str) -> Any:
    """The base's tokenizer with our chat template.

    Raises:
        TrainerError: the vocabulary lacks Llama 3's control tokens, or the tokenizer and our chat template do not
            match (see `check_tokenizer`).
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
    except OSError as error:
        raise TrainerError(_unreachable(base, error)) from None
    known = tokenizer.get_vocab()
    missing = [token for token in CONTROL_TOKENS if token not in known]
    if missing:
        raise TrainerError(
            f"{base}: the tokenizer lacks {', '.join(missing)}; the chat format needs a Llama-3 tokenizer"
        )
    tokenizer.chat_template = template_text()
    check_tokenizer(tokenizer, base)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = "<|finetune_right_pad_id|>" if "<|finetune_right_pad_id|>" in known else EOT
    return tokenizer


def load_model(base: str, student: StudentConfig) -> Any:
    """The base's weights, quantised to NF4 where the config says so.

    Raises:
        TrainerError: the hub cannot be reached, or the files are not a causal language model.
    """
    dtype = getattr(torch, student.dtype)
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention_kernel(student), **placement(student)}
    if student.load_in_4bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(base, **options)
    except OSError as error:
        raise TrainerError(_unreachable(base, error)) from None
    model.generation_config.pad_token_id = model.config.pad_token_id
    return model


def placement(student: StudentConfig) -> dict[str, Any]:
    """Where `from_pretrained` puts the weights: on this process's GPU.

    Those that FSDP or DeepSpeed will split begin in CPU memory: whole they need not fit on a GPU. NF4 weights are not
    split, and are made on the GPU.
    """
    if not torch.cuda.is_available() or (splits_weights() and not student.load_in_4bit):
        return {}
    return {"device_map": {"": int(os.environ.get("LOCAL_RANK", "0"))}}


def attention_kernel(student: StudentConfig) -> str:
    """The kernel that `student.attention` means here: 'auto' is FlashAttention 2 where it can run."""
    if student.attention != "auto":
        return student.attention
    return "flash_attention_2" if torch.cuda.is_available() and find_spec("flash_attn") is not None else "sdpa"


def _unreachable(base: str, error: OSError) -> str:
    first = str(error).split("\n")[0]
    return f"{base}: cannot be loaded ({first}); give base_model a local folder with {LAYOUT}"


def load_adapted(base: str, student: StudentConfig, adapter: Path | str | None, *, trainable: bool = False) -> Any:
    """The base with a student's adapter on it, in eval mode; the bare base where `adapter` is None.

    Args:
        trainable: keep the adapter apart and open to training; else it is merged into the weights where they are not
            quantised, which makes generation faster.
    """
    model = load_model(base, student)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter), is_trainable=trainable)
        if not trainable and not student.load_in_4bit:
            model = model.merge_and_unload()
    return model.eval()
