"""A GGUF as data: its header, vocabulary and tensors, read without llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf

from trainer.errors import TrainerError
from trainer.export.llama_vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROLE_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "eot": "tokenizer.ggml.eot_token_id",
    "eom": "tokenizer.ggml.eom_token_id",
    "padding": "tokenizer.ggml.padding_token_id",
}


class GgufFile:
    """The open file; the tensors stay on disk until they are looked at.

    Raises:
        TrainerError: missing, not a GGUF, or cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise TrainerError(f"{path}: no such file")
        with path.open("rb") as stream:
            magic = stream.read(4)
        if magic != b"GGUF":
            raise TrainerError(f"{path}: not a GGUF: it starts with {magic!r}; `claude-trainer export` makes one")
        try:
            self._reader = gguf.GGUFReader(path)
        except Exception as error:  # a broken header makes the reader fail in many ways
            reason = str(error).split("\n")[0] or type(error).__name__
            raise TrainerError(f"{path}: the GGUF is damaged or cut off ({reason}); export or copy it again") from None
        end = max((int(t.data_offset) + int(t.n_bytes) for t in self._reader.tensors), default=0)
        if end > path.stat().st_size:
            raise TrainerError(f"{path}: the GGUF is cut off: {path.stat().st_size} of {end} bytes; copy it again")

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a header field, as Python data."""
        field = self._reader.get_field(key)
        return default if field is None else field.contents()

    def header_keys(self) -> list[str]:
        """Header fields, those of the container (GGUF.*) left out."""
        return [key for key in self._reader.fields if not key.startswith("GGUF.")]

    @property
    def tensors(self) -> Sequence[Any]:
        """`gguf.ReaderTensor`s in file order; `shape` has the row length first."""
        tensors: Sequence[Any] = self._reader.tensors
        return tensors

    def tensor(self, name: str) -> Any | None:
        """One tensor by name."""
        return next((tensor for tensor in self.tensors if tensor.name == name), None)

    def vocabulary(self) -> Vocabulary:
        """The tokenizer's fields.

        Raises:
            TrainerError: the file holds none.
        """
        tokens, types = self.get("tokenizer.ggml.tokens"), self.get("tokenizer.ggml.token_type")
        if not tokens or not types:
            raise TrainerError(f"{self.path}: it holds no vocabulary; export it again")
        roles = {role: self.get(key) for role, key in _ROLE_KEYS.items()}
        return Vocabulary(
            tokens=list(tokens),
            types=[int(kind) for kind in types],
            merges=list(self.get("tokenizer.ggml.merges") or []),
            roles={role: int(value) for role, value in roles.items() if value is not None},
        )
