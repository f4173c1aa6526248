"""What retrieval asks of a model: texts in, vectors out, and a fingerprint that is known before the weights are."""

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np

from largede.errors import ModelError
from largede.files import sha256_file
from largede.models.parameters import parameters_of

Side = Literal["query", "passage"]
Item = TypeVar("Item")
_READING = 2
"""Raised when the same folder gives other vectors. 2: T5's texts are cut by SentencePiece."""


class TextEncoder(Protocol):
    """A loaded dual encoder. Vectors are ready for the inner product: normalised where the similarity is cosine."""

    @property
    def dimension(self) -> int: ...

    @property
    def similarity(self) -> str: ...

    def embed(self, texts: Sequence[str], side: Side, max_tokens: int) -> np.ndarray:
        """Float32 of shape (len(texts), dimension); rows in the order of the texts."""
        ...


@runtime_checkable
class PreparingEncoder(Protocol):
    """An encoder whose `embed` has two halves, of which the first may run in a thread ahead of the second."""

    @property
    def prepares_ahead(self) -> bool:
        """Whether a thread beside the computing helps: where every core computes already, it hinders."""
        ...

    def prepare(self, texts: Sequence[str], side: Side, max_tokens: int) -> Any: ...

    def embed_rows(self, rows: Any, side: Side, told: Callable[[int], None]) -> np.ndarray:
        """`told` hears of the texts that are done as they are."""
        ...


@dataclass(frozen=True)
class Model:
    """A model by name and content. `load` reads the weights at its first call and gives the same encoder afterwards."""

    name: str
    fingerprint: str
    load: Callable[[], TextEncoder]
    parameters: int | None = None


def is_model_folder(path: Path) -> bool:
    """Whether `open_model` takes it: written by `largede export` or by sentence-transformers."""
    return any((path / name).is_file() for name in ("largede.json", "modules.json"))


def open_model(path: Path, *, device: str | None = None, dtype: str = "float32") -> Model:
    """A model folder, not loaded yet. Raises ModelError when there is none."""
    if not is_model_folder(path):
        raise ModelError(
            f"{path} is no model folder: it has no modules.json"
            if path.is_dir()
            else f"there is no model folder {path}",
            expected="a folder written by `largede export` or by sentence-transformers",
            mend="check --model",
        )

    def load() -> TextEncoder:
        from largede.models.text_encoder import load_text_encoder

        return load_text_encoder(path, device=device, dtype=dtype)

    return Model(path.resolve().name, _folder_fingerprint(path, dtype), functools.cache(load), parameters_of(path))


def embed_checked(encoder: TextEncoder, texts: Sequence[str], side: Side, max_tokens: int) -> np.ndarray:
    """`encoder.embed`, refusing vectors that would poison every ranking. Raises ModelError."""
    return _checked(encoder, encoder.embed(texts, side, max_tokens), len(texts), side)


def embed_windows(
    encoder: TextEncoder,
    windows: Iterable[Sequence[str]],
    side: Side,
    max_tokens: int,
    told: Callable[[int], None] = lambda count: None,
) -> Iterator[np.ndarray]:
    """`embed_checked` of one window of texts after the other; `told` hears how many texts were done.

    While one is computed, the next may be read and made into tokens by a thread; the encoder says whether it should.
    """
    if not isinstance(encoder, PreparingEncoder):
        for texts in windows:
            vectors = embed_checked(encoder, texts, side, max_tokens)
            told(len(texts))
            yield vectors
        return
    prepared = ((len(texts), encoder.prepare(texts, side, max_tokens)) for texts in windows)
    for count, rows in one_ahead(prepared) if encoder.prepares_ahead else prepared:
        yield _checked(encoder, encoder.embed_rows(rows, side, told), count, side)


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; while one is in use, a thread makes the next."""
    with ThreadPoolExecutor(1, "ahead") as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def _checked(encoder: TextEncoder, vectors: np.ndarray, count: int, side: Side) -> np.ndarray:
    if vectors.shape != (count, encoder.dimension):
        raise ModelError(
            f"the model gave vectors of shape {vectors.shape}",
            expected=f"{(count, encoder.dimension)}",
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
    """Of the names and bytes of all files that could be read, and of the arithmetic they are used with."""
    digest = hashlib.sha256(f"{_READING} {dtype}".encode())
    for name in sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file()):
        # A clone's history, and the same weights for other programs, are as large as the model and never read.
        unread = any(part.startswith(".") or part in ("onnx", "openvino") for part in name.parts)
        if not unread and name.suffix != ".md":
            digest.update(f"\n{name} {sha256_file(path / name)}".encode())
    return digest.hexdigest()
