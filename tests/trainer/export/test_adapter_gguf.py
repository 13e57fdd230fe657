"""An adapter GGUF laid over the plain base computes what the merged file computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainer.config import ExportConfig
from trainer.errors import TrainerError
from trainer.export.adapter_gguf import export_adapter
from trainer.export.export_records import Provenance, sha256_of
from trainer.export.gguf_exporter import export_model
from trainer.export.gguf_file import GgufFile
from trainer.export.llama_library import llama_library
from trainer.export.llama_runtime import GgufModel
from trainer.export.parity import compare

pytestmark = [  # what peft says about itself
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers. to:UserWarning"),
]
CONFIG = ExportConfig(context_length=512, quantization="q8_0")


class WithAdapter:
    """The plain base in llama.cpp with an adapter on it; cache and logits as `GgufModel(logits=True)` has them."""

    def __init__(self, base: Path, adapter: Path) -> None:
        library = llama_library()
        wide = {"type_k": library.GGML_TYPE_F32, "type_v": library.GGML_TYPE_F32}
        self._llama = library.Llama(
            str(base), lora_path=str(adapter), n_ctx=512, logits_all=True, n_threads=1, verbose=False, **wide
        )

    def logits(self, ids: list[int]) -> Any:
        self._llama.reset()
        self._llama.eval(ids)
        return self._llama.scores[: len(ids)].copy()

    def close(self) -> None:
        self._llama.close()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_rslora": True},
        {"alpha_pattern": {"q_proj": 48, "layers.1.mlp.up_proj": 3}, "rank_pattern": {"v_proj": 2}},
        {"target_modules": ["lm_head", "k_proj"]},
    ],
    ids=["all linear", "rank-stabilised", "patterns", "output matrix"],
)
def test_adapter_on_the_base_is_the_merged_model(
    make_base: Any, make_adapter: Any, tmp_path: Path, changes: dict[str, Any]
) -> None:
    base = make_base(num_key_value_heads=2)
    folder, _ = make_adapter(base, tmp_path / "adapter", **changes)
    plain = Path(export_model(base, None, tmp_path / "models", "base", CONFIG).plain.path)
    merged = Path(export_model(base, folder, tmp_path / "models", "merged", CONFIG).plain.path)
    made = export_adapter(base, folder, tmp_path / "models", "m")
    ids = [torch.randint(0, 700, (200,), generator=torch.Generator().manual_seed(0)).tolist()]
    laid_over = WithAdapter(plain, Path(made.path))
    try:
        with GgufModel(merged, n_ctx=512, logits=True) as whole, GgufModel(plain, n_ctx=512, logits=True) as bare:
            found = compare(whole.logits, laid_over.logits, ids)
            without = compare(bare.logits, laid_over.logits, ids)
    finally:
        laid_over.close()
    assert found.argmax_agreement >= 0.995
    assert found.max_logit_diff < 0.02
    assert without.max_logit_diff > 10 * found.max_logit_diff


def test_adapter_file_says_what_it_is_and_where_it_comes_from(
    make_base: Any, make_adapter: Any, tmp_path: Path
) -> None:
    base = make_base()
    folder, _ = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj"])
    provenance = Provenance(base_model="org/base", licence="llama3.1", teachers=["t"], dataset_hash="abc")
    made = export_adapter(base, folder, tmp_path, "llama-claude-bc-v1", provenance=provenance)
    assert Path(made.path).name == "llama-claude-bc-v1-lora.gguf"
    assert (made.sha256, made.bytes) == (sha256_of(Path(made.path)), Path(made.path).stat().st_size)
    file = GgufFile(Path(made.path))
    expected = {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 16.0,
        "general.name": "llama-claude-bc-v1",
        "general.license": "llama3.1",
        "general.base_model.0.name": "org/base",
        "claude_capture.teachers": ["t"],
        "claude_capture.dataset_hash": "abc",
    }
    assert {key: file.get(key) for key in expected} == expected
    assert {tensor.name for tensor in file.tensors} == {
        f"blk.{layer}.attn_q.weight.lora_{part}" for layer in (0, 1) for part in "ab"
    }
    assert not [tensor.name for tensor in file.tensors if not np.isfinite(tensor.data).all()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "uses DoRA, which llama.cpp cannot lay over a base; merge it"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, r"brings lm_head\.weight whole"),
    ],
)
def test_what_an_adapter_file_cannot_hold_is_refused(
    make_base: Any, make_adapter: Any, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    base = make_base()
    folder, _ = make_adapter(base, tmp_path / "adapter", **changes)
    with pytest.raises(TrainerError, match=message):
        export_adapter(base, folder, tmp_path / "models", "m")
    with pytest.raises(TrainerError, match="wrong base"):
        export_adapter(make_base(num_hidden_layers=1), folder, tmp_path / "models", "m")
    assert not (tmp_path / "models").exists()
