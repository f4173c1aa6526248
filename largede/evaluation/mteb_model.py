"""A model folder of ours under mteb, two towers included.

A folder of one tower needs nothing from here: sentence-transformers loads it, and mteb takes that. Two towers are one
model to mteb through its encoder protocol (mteb/models/models_protocols.py), which says of each text whether it is a
query or a document:

    import mteb
    from largede.evaluation.mteb_model import MtebModel

    mteb.evaluate(MtebModel("models/base"), mteb.get_tasks(["NFCorpus"]))
"""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from largede.retrieval.encoder import Model, Side, TextEncoder, embed_checked, open_model


class MtebModel:
    """mteb's EncoderProtocol over a model folder. Texts that are neither query nor document go to the passage tower."""

    def __init__(
        self,
        model_name: str | Path,
        revision: str | None = None,
        *,
        device: str | None = None,
        dtype: str = "float32",
        max_query_tokens: int = 64,
        max_passage_tokens: int = 512,
        **unused: Any,
    ) -> None:
        self.model: Model = open_model(Path(model_name), device=device, dtype=dtype)
        self.revision = revision
        self.max_tokens: dict[Side, int] = {"query": max_query_tokens, "passage": max_passage_tokens}

    @cached_property
    def encoder(self) -> TextEncoder:
        return self.model.load()

    def encode(
        self, inputs: Iterable[dict[str, Any]], *, prompt_type: Any = None, **task_and_settings: Any
    ) -> np.ndarray:
        """Vectors (texts, dimension). `inputs` are batches of mteb's loader; their `text` has the title before it."""
        side: Side = "query" if prompt_type is not None and str(prompt_type.value) == "query" else "passage"
        texts = [text for batch in inputs for text in batch["text"]]
        return embed_checked(self.encoder, texts, side, self.max_tokens[side])

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Inner products of all pairs: vectors are normalised where the similarity is cosine."""
        return torch.as_tensor(embeddings1) @ torch.as_tensor(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Inner products of the vectors of one row."""
        return (torch.as_tensor(embeddings1) * torch.as_tensor(embeddings2)).sum(-1)

    @property
    def mteb_model_meta(self) -> Any:
        from mteb.models.model_meta import ModelMeta

        return ModelMeta.create_empty({"name": f"largede/{self.model.name}", "revision": self.model.fingerprint[:12]})
