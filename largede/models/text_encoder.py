"""A model folder as an encoder: texts in, one float32 vector each out.

Texts become tokens (`prepare`) and tokens become vectors (`embed_rows`); who has many texts does the first for the
next of them while the second is at work. Rows are computed in chunks of a token budget, sorted by length: padded, or
packed where the model can read them so (T5 on a GPU).
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from largede.config.recipe import Attention
from largede.errors import ModelError
from largede.models.attention import packing_for
from largede.models.dual_encoder import SIDES, Side
from largede.models.embed_chunks import embed_chunks
from largede.models.folder import towers_in
from largede.models.linear import use_onednn
from largede.models.published import LoadedTower, load_tower
from largede.processors import processors
from largede.streams.chunks import Chunk, TokenRows, make_chunks, make_packed_chunks
from largede.streams.pieces import encoder_of

GPU_CHUNK_TOKENS = 16_384
CPU_CHUNK_TOKENS = 1_024
"""What a layer makes of so many tokens fits into a CPU's caches; measured by tests/retrieval/measure_encoding.py."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class FolderEncoder:
    """A loaded model folder: texts in, one float32 vector each out."""

    def __init__(self, name: str, loaded: dict[Side, LoadedTower], chunk_tokens: int | None = None) -> None:
        self.name = name
        self.towers = {side: loaded[side].tower for side in SIDES}
        self.tokenizers = {side: loaded[side].tokenizer for side in SIDES}
        self.prefixes = {side: loaded[side].prefixes[side] for side in SIDES}
        self.limits = {side: loaded[side].limits[side] for side in SIDES}
        self.similarity = loaded["query"].similarity
        self.device = next(self.towers["query"].parameters()).device
        self.chunk_tokens = chunk_tokens or (CPU_CHUNK_TOKENS if self.device.type == "cpu" else GPU_CHUNK_TOKENS)
        self._said: set[Side] = set()
        self._tokens = {side: encoder_of(self.tokenizers[side], threads=torch.get_num_threads()) for side in SIDES}

    @property
    def dimension(self) -> int:
        """Width of one embedding."""
        return self.towers["query"].dimension

    @property
    def prepares_ahead(self) -> bool:
        """On a GPU, and on a CPU of which some cores are left over."""
        return self.device.type != "cpu" or torch.get_num_threads() < processors()

    def choose_attention(self, attention: Attention) -> None:
        """As in training: `auto` packs a T5 on a GPU. Raises RecipeError for packed attention and another model."""
        for tower in set(self.towers.values()):
            packing = packing_for(attention, tower.encoder.config.model_type, on_gpu=self.device.type == "cuda")
            if packing is not None:
                tower.use_packing(packing)

    def use_onednn(self) -> None:
        """Multiply by oneDNN where it is faster (on some CPUs). The towers then embed, and do nothing else."""
        for tower in set(self.towers.values()):
            use_onednn(tower.encoder)

    def embed(self, texts: Sequence[str], side: Side, max_tokens: int) -> np.ndarray:
        """Embeddings (len(texts), dimension), float32, rows in the order of the texts.

        Texts are cut to `max_tokens`, or to what the model reads at most, which is said once.
        """
        return self.embed_rows(self.prepare(texts, side, max_tokens), side)

    def prepare(self, texts: Sequence[str], side: Side, max_tokens: int) -> TokenRows:
        """The tokens of each text with its side's prefix. Waits for no GPU, and may run in another thread."""
        if not len(texts):
            return TokenRows.of([])
        prefixed = [self.prefixes[side] + text for text in texts]
        return TokenRows.of(self._tokens[side](prefixed, self._limited(side, max_tokens)))

    def embed_rows(self, rows: TokenRows, side: Side, told: Callable[[int], None] = lambda count: None) -> np.ndarray:
        """Embeddings (rows, dimension), float32, of what `prepare` made; `told` hears how many are done."""
        result = np.empty((len(rows), self.dimension), dtype=np.float32)
        for chunk, vector_BD in embed_chunks(self.towers[side], self._chunks(rows, side), self.device):
            result[chunk.rows.numpy()] = vector_BD.cpu().numpy()
            told(len(chunk.rows))
        return result

    def _chunks(self, rows: TokenRows, side: Side) -> Sequence[Chunk]:
        if self.towers[side].packing is None:
            return make_chunks(rows, self.chunk_tokens)
        # A chunk has to take the longest text there is.
        return make_packed_chunks(rows, max(self.chunk_tokens, int(rows.lengths.max(initial=1))))

    def _limited(self, side: Side, max_tokens: int) -> int:
        own = getattr(self.tokenizers[side], "num_special_tokens_to_add", lambda: 0)()
        if max_tokens <= own:
            raise ModelError(
                f"texts cut to {max_tokens} tokens, of which {self.name} adds {own} itself",
                expected=f"{own + 1} at least",
                mend="raise the number of tokens",
            )
        limit = self.limits[side]
        if limit is None or limit >= max_tokens:
            return max_tokens
        if side not in self._said:
            self._said.add(side)
            told = f"{self.name} reads at most {limit} tokens of a {side}, not {max_tokens}: longer ones are cut there"
            print(told, file=sys.stderr, flush=True)
        return limit


def load_text_encoder(
    path: str | Path,
    *,
    device: str | None = None,
    dtype: str = "float32",
    attention: Attention = "auto",
    onednn: bool = True,
) -> FolderEncoder:
    """Load a folder written by `largede export`, or a published sentence-transformers folder (see `published`).

    `onednn`: linear layers are replaced where that makes a CPU faster; they then have no parameters.

    Raises:
        ModelError: no such folder, modules or settings that we do not have, or bad weights.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelError(f"no model folder {folder}", expected="a folder", mend="run `largede export` first")
    if dtype not in DTYPES:
        raise ModelError(f"dtype {dtype!r}", expected=" or ".join(DTYPES), mend="choose one of them")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    names = towers_in(folder)
    names = names or {"query": "", "passage": ""}
    loaded = {name: load_tower(folder / name, place, DTYPES[dtype]) for name in set(names.values())}
    encoder = FolderEncoder(folder.resolve().name, {side: loaded[names[side]] for side in SIDES})
    encoder.choose_attention(attention)
    if onednn:
        encoder.use_onednn()
    return encoder
