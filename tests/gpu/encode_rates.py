"""How fast one GPU encodes with each size, and how much of its arithmetic is used, beside sentence-transformers.

    python tests/gpu/encode_rates.py --model gtr-base --texts 8192
    python tests/gpu/encode_rates.py --device cpu --model smoke --texts 64 --batch 8 16 --chunk-tokens 128 256

Weights are random, bf16 on both sides (float32 on a CPU); texts are token ids at random, log-uniform in length, and the
same for both. Tokenisation is timed for neither: `embed_rows` is given what `prepare` would give, and theirs is the
forward pass and read-back of `SentenceTransformer.encode`, batches in falling order of length, for each batch size.
Ours is packed and padded. Model FLOPs of real tokens: 2 for each weight of a matrix product, and 4 x layers x heads x
width of a head x length for each token's attention, as in rates.py. The median of the rounds counts.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rates import now, peak_tflops

from largede.models.build import build_t5, prepare_libraries, t5_config
from largede.models.pooling import Dense, Normalize
from largede.models.presets import PRESETS, T5Shape
from largede.models.published import LoadedTower
from largede.models.text_encoder import FolderEncoder
from largede.models.tower import PublishedTower
from largede.streams.chunks import TokenRows, pad_rows


def made_rows(count: int, shortest: int, longest: int, vocabulary: int) -> TokenRows:
    generator = np.random.default_rng(0)
    lengths = np.exp(generator.uniform(np.log(shortest), np.log(longest), count)).astype(int)
    return TokenRows.of([generator.integers(3, vocabulary, length).tolist() for length in lengths])


def made_encoder(shape: T5Shape, device: torch.device, dtype: torch.dtype) -> FolderEncoder:
    prepare_libraries()
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(dtype)
        try:
            encoder = build_t5(t5_config(shape))
        finally:
            torch.set_default_dtype(torch.float32)
        head = torch.nn.Sequential(
            Dense(torch.nn.Linear(shape.d_model, 768, bias=False), torch.nn.Identity()), Normalize()
        )
    tower = PublishedTower(encoder, "mean", head, 768).to(device).eval()
    loaded = LoadedTower(tower, None, {"query": "", "passage": ""}, {"query": None, "passage": None}, "cosine")
    return FolderEncoder("made", {"query": loaded, "passage": loaded})


def flops_of(shape: T5Shape, lengths: np.ndarray) -> float:
    inner = shape.heads * shape.d_kv
    into = 2 if shape.feed_forward.startswith("gated") else 1
    weights = shape.layers * (4 * shape.d_model * inner + (into + 1) * shape.d_model * shape.d_ff)
    tokens, squares = float(lengths.sum()), float(np.square(lengths.astype(float)).sum())
    return 2 * weights * tokens + 4 * shape.layers * inner * squares + 2 * shape.d_model * 768 * len(lengths)


class Theirs:
    """The encoder as sentence-transformers runs it: its modules in a row, a batch of rows at a time."""

    def __init__(self, encoder: Any, head: torch.nn.Sequential, device: torch.device) -> None:
        from sentence_transformers.sentence_transformer.modules import Pooling

        self.encoder, self.head, self.device = encoder, head, device
        self.pooling = Pooling(encoder.config.hidden_size, "mean")

    @torch.inference_mode()
    def run(self, rows: TokenRows, batch: int) -> np.ndarray:
        order = np.argsort(-rows.lengths, kind="stable")
        found = []
        for start in range(0, len(order), batch):
            chunk = pad_rows(rows, order[start : start + batch]).to(self.device)
            state = self.encoder(input_ids=chunk.token_BL, attention_mask=chunk.mask_BL).last_hidden_state
            pooled = self.pooling({"token_embeddings": state, "attention_mask": chunk.mask_BL})["sentence_embedding"]
            found.append(self.head(pooled).float().cpu())
        result = np.empty((len(order), 768), dtype=np.float32)
        result[order] = torch.cat(found).numpy()
        return result


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray | None]:
    began = now()
    try:
        result = work()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return float("inf"), None
    return now() - began, result


def compare(given: argparse.Namespace) -> dict[str, Any]:
    device = torch.device(given.device)
    dtype = torch.bfloat16 if given.device == "cuda" else torch.float32
    shape = PRESETS[given.model]
    rows = made_rows(given.texts, *given.lengths, shape.vocabulary)
    ours = made_encoder(shape, device, dtype)
    tower = ours.towers["passage"]
    theirs = Theirs(tower.encoder, tower.head, device)
    ways: dict[str, Callable[[], np.ndarray]] = {}
    for size in given.batch:
        ways[f"theirs {size}"] = lambda size=size: theirs.run(rows, size)  # type: ignore[misc]

    def our_way(tokens: int) -> np.ndarray:
        ours.chunk_tokens = tokens
        return ours.embed_rows(rows, "passage")

    for tokens in given.chunk_tokens:
        ways[f"padded {tokens}"] = lambda tokens=tokens: our_way(tokens)  # type: ignore[misc]
    seconds, vectors = measured(ways, given.rounds)
    # Packing changes the encoder for good, so it comes last.
    ours.choose_attention("packed")
    best = min((name for name in seconds if name.startswith("theirs")), key=lambda name: seconds[name])
    packed = {f"packed {tokens}": (lambda tokens=tokens: our_way(tokens)) for tokens in given.chunk_tokens}
    packed_seconds, packed_vectors = measured(packed, given.rounds)  # type: ignore[arg-type]
    seconds |= packed_seconds
    vectors |= packed_vectors
    flops, peak = flops_of(shape, rows.lengths), peak_tflops(None)
    reference = vectors[best]
    figures = {
        name: {
            "texts_per_s": given.texts / s,
            "tokens_per_s": len(rows.tokens) / s,
            "model_flop_utilisation": flops / s / 1e12 / peak if peak else None,
            "ratio_to_best_of_theirs": seconds[best] / s,
            "least_cosine": float((vectors[name] * reference).sum(1).min()) if name in vectors else None,
        }
        for name, s in seconds.items()
        if np.isfinite(s)
    }
    return {
        "model": given.model,
        "dtype": str(dtype),
        "texts": given.texts,
        "tokens": len(rows.tokens),
        "ways": figures,
    }


def measured(ways: dict[str, Callable[[], np.ndarray]], rounds: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Median seconds of each way over rounds taken in turns, after one that warms up (and compiles); its vectors."""
    vectors = {name: found for name, work in ways.items() if (found := timed(work)[1]) is not None}
    times: dict[str, list[float]] = {name: [] for name in vectors}
    for number in range(rounds):
        for name in sorted(times, reverse=bool(number % 2)):
            times[name].append(timed(ways[name])[0])
    return {name: statistics.median(found) for name, found in times.items()}, vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--model", default="gtr-base", choices=PRESETS)
    parser.add_argument("--texts", type=int, default=8192)
    parser.add_argument("--lengths", type=int, nargs=2, default=[8, 512], metavar=("SHORTEST", "LONGEST"))
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 64, 128, 256], help="theirs to try")
    parser.add_argument("--chunk-tokens", type=int, nargs="+", default=[16384, 65536], help="ours to try")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file of JSON lines to add the result to")
    given = parser.parse_args()
    where = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    result = {"where": where, "time": time.time(), **compare(given)}
    print(json.dumps(result, indent=1))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
