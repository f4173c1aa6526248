"""What retrieval asks of a model: texts in, vectors out, and a fingerprint that is known before the weights are."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from largede.errors import ModelError
from largede.files import sha256_file

Side = Literal["query", "passage"]


class TextEncoder(Protocol):
    """A loaded dual encoder. Vectors are ready for the inner product: normalised where the similarity is cosine."""

    @property
    def dimension(self) -> int: ...

    @property
    def similarity(self) -> str: ...

    def embed(self, texts: Sequence[str], side: Side, max_tokens: int) -> np.ndarray:
        """Float32 of shape (len(texts), dimension); rows in the order of the texts."""
        ...


@dataclass(frozen=True)
class Model:
    """A model by name and content. `load` reads the weights at its first call and gives the same encoder afterwards."""

    name: str
    fingerprint: str
    load: Callable[[], TextEncoder]


def open_model(path: Path, *, device: str | None = None, dtype: str = "float32") -> Model:
    """A model folder, not loaded yet. Raises ModelError when there is none."""
    if not path.is_dir():
        raise ModelError(
            f"there is no model folder {path}", expected="a folder written by `largede export`", mend="check --model"
        )

    def load() -> TextEncoder:
        from largede.models.folder import load_text_encoder

        return load_text_encoder(path, device=device, dtype=dtype)

    return Model(path.resolve().name, _folder_fingerprint(path, dtype), functools.cache(load))


def embed_checked(encoder: TextEncoder, texts: Sequence[str], side: Side, max_tokens: int) -> np.ndarray:
    """`encoder.embed`, refusing vectors that would poison every ranking. Raises ModelError."""
    vectors = encoder.embed(texts, side, max_tokens)
    if vectors.shape != (len(texts), encoder.dimension):
        raise ModelError(
            f"the model gave vectors of shape {vectors.shape}",
            expected=f"{(len(texts), encoder.dimension)}",
            mend="check the model's projection",
        )
    if not np.isfinite(vectors).all():
        raise ModelError(
            f"the model gave numbers that are not finite for a {side}",
            expected="finite embeddings",
            mend="train it again from the checkpoint before the loss diverged, or use float32",
        )
    return vectors


def _folder_fingerprint(path: Path, dtype: str) -> str:
    """Of the names and bytes of all files, and of the arithmetic they are used with."""
    digest = hashlib.sha256(dtype.encode())
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"\n{file.relative_to(path)} {sha256_file(file)}".encode())
    return digest.hexdigest()
