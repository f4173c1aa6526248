"""What makes a query faster on this CPU: oneDNN's linear layers, bf16, torch.compile and ONNX Runtime.

All in one run, taking turns.

`plain` is with torch's own linear layers; all others but ONNX Runtime have the ones that every encoder gets.

    python tests/evaluation/measure_paths.py --model gtr-base --cells 1x16 1x128 8x32 --rounds 15
    python tests/evaluation/measure_paths.py --paths "plain float32" float32 bfloat16 onnx

Rounds take turns over the paths, so that whatever else the machine does falls on all of them; ratios are of medians,
with the quartiles of the ratios of single rounds. ONNX Runtime is left out where `onnx` is not installed, which torch
needs to write the file. Vectors are compared with the first path's.
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from largede.evaluation.latency.model import OpenedEncoder, open_encoder
from largede.evaluation.latency.texts import texts_of

KINDS = ("plain float32", "float32", "plain bfloat16", "bfloat16")
PATHS = (*KINDS, *(f"{kind} compile" for kind in KINDS), "onnx")


class OnnxTower(torch.nn.Module):
    """A tower in ONNX Runtime."""

    packing = None

    def __init__(self, tower: Any, folder: Path, threads: int) -> None:
        super().__init__()
        import onnxruntime

        token_BL = torch.randint(1, 99, (2, 16))
        names = ["tokens", "mask"]
        torch.onnx.export(
            tower,
            (token_BL, torch.ones_like(token_BL)),
            folder / "tower.onnx",
            dynamo=False,
            input_names=names,
            dynamic_axes={name: {0: "B", 1: "L"} for name in names},
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(folder / "tower.onnx", options, providers=["CPUExecutionProvider"])

    def forward(self, token_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.session.run(None, {"tokens": token_BL.numpy(), "mask": mask_BL.numpy()})[0])


def opened_as(path: str, model: str, folder: Path) -> OpenedEncoder:
    onednn = path != "onnx" and "plain" not in path
    opened = open_encoder(model, "cpu", "bfloat16" if "bfloat16" in path else "float32", onednn=onednn)
    towers: dict[Any, Any] = opened.encoder.towers
    if "compile" in path:
        torch._dynamo.config.recompile_limit = 64  # type: ignore[attr-defined]
        towers["query"] = torch.compile(towers["query"], dynamic=False)
    if path == "onnx":
        opened.encoder.dimension  # noqa: B018  # asked of the tower, which is replaced
        towers["query"] = OnnxTower(towers["query"], folder, torch.get_num_threads())
        type(opened.encoder).dimension = 768  # type: ignore[misc,assignment]
    return opened


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gtr-base")
    parser.add_argument("--paths", nargs="+", default=list(PATHS), choices=PATHS)
    parser.add_argument("--cells", nargs="+", default=["1x16", "1x128", "8x32"], metavar="BATCHxLENGTH")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    paths = [path for path in args.paths if path != "onnx" or importlib.util.find_spec("onnx")]
    with tempfile.TemporaryDirectory() as folder:
        encoders = {path: opened_as(path, args.model, Path(folder)) for path in paths}
        print(f"{args.model}, {torch.get_num_threads()} threads, {args.rounds} rounds; ratio: {paths[0]} / path")
        for cell in args.cells:
            batch, length = map(int, cell.split("x"))
            measure_cell(encoders, batch, length, args.rounds)


def measure_cell(encoders: dict[str, OpenedEncoder], batch: int, length: int, rounds: int) -> None:
    first = next(iter(encoders.values()))
    texts = texts_of(first.tokenizer, first.prefix, length, batch)
    vectors = {}
    for path, opened in encoders.items():
        warm_up = seconds(lambda: vectors.update({path: opened.encoder.embed(texts, "query", length)}))  # noqa: B023
        opened.encoder.embed(texts, "query", length)
        print(f"  {batch} x {length}: first call of {path} {warm_up:.1f} s", flush=True)
    times = {path: [] for path in encoders}  # type: dict[str, list[float]]
    for _ in range(rounds):
        for path, opened in encoders.items():
            times[path].append(seconds(lambda: opened.encoder.embed(texts, "query", length)))  # noqa: B023
    base = np.array(times[next(iter(encoders))])
    for path, found in times.items():
        ratio = np.percentile(base / np.array(found), [25, 50, 75])
        cosine = float((vectors[path] * vectors[next(iter(encoders))]).sum(1).min())
        of_medians = np.median(base) / np.median(found)
        row = f"  {batch} x {length}  {path:<17} p50 {1000 * np.median(found):9.1f} ms  ratio {of_medians:5.2f}"
        print(f"{row} (rounds {ratio[0]:.2f} to {ratio[2]:.2f})  least cosine {cosine:.5f}", flush=True)


if __name__ == "__main__":
    main()
