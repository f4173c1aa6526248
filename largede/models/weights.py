"""Where a model's first weights come from, a range at a time, so that no rank ever holds more than it keeps.

A source answers for the elements start .. start + length of a parameter (flattened, row-major), named as in
`DualEncoder.named_parameters()`. Fresh weights are a function of (seed, name) alone: the same on any number of ranks,
at any ZeRO stage, sharded or not.
"""

import functools
import hashlib
import json
import math
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor, nn

from largede.errors import ModelError
from largede.models.dual_encoder import DualEncoder


class WeightSource(Protocol):
    """Float32 values of parameters by range."""

    def read(self, name: str, start: int, length: int) -> Tensor: ...


def fill_parameters(model: nn.Module, source: WeightSource) -> None:
    """Write every parameter of a model that holds its parameters whole. The plain twin of filling ZeRO's slices."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(source.read(name, 0, parameter.numel()).view(parameter.shape))


class FreshWeights:
    """Initial values of T5 encoders and of the projection.

    Sources: T5's own (Raffel et al. 2020, mesh-tensorflow): normal with deviation 1 for the token embedder,
    (d_model * d_kv)^-1/2 for queries, d_model^-1/2 for keys, values, relative bias and the way into the feed-forward
    layer, (heads * d_kv)^-1/2 and d_ff^-1/2 for the ways out; norms are 1. The projection: variance scaling with
    scale 1 over the fan-in, a normal cut at two deviations, as in t5x_retrieval.
    """

    def __init__(self, model: DualEncoder, seed: int) -> None:
        self.seed = seed
        self.shapes = {n: tuple(getattr(p, "ds_shape", p.shape)) for n, p in model.named_parameters()}
        self.config: Any = model.query_tower.encoder.config
        # Slices of one parameter are asked for in a row: under ZeRO-1 and 2 a cut can fall inside.
        self._whole = functools.lru_cache(maxsize=1)(self._generate)

    def read(self, name: str, start: int, length: int) -> Tensor:
        return self._whole(name)[start : start + length]

    def _generate(self, name: str) -> Tensor:
        shape = self.shapes[name]
        if len(shape) == 1:
            return torch.ones(shape)
        generator = torch.Generator().manual_seed(seed_of(self.seed, name))
        if name.endswith("projection.weight"):
            return cut_normal(shape, math.sqrt(1.0 / shape[1]), generator).flatten()
        values = torch.empty(shape).normal_(std=t5_deviation(name, self.config), generator=generator)
        return values.flatten()


def seed_of(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def cut_normal(shape: tuple[int, ...], deviation: float, generator: torch.Generator | None = None) -> Tensor:
    """A normal cut at two of its deviations and rescaled to `deviation`."""
    # A normal cut there keeps 0.8796 of its deviation.
    wide = deviation / 0.87962566
    return nn.init.trunc_normal_(torch.empty(shape), std=wide, a=-2 * wide, b=2 * wide, generator=generator)


def t5_deviation(name: str, config: Any) -> float:
    """Standard deviation of a fresh T5 matrix by the end of its name."""
    part = name.rsplit(".", 2)[-2]
    variances = {
        "q": 1.0 / (config.d_model * config.d_kv),
        "k": 1.0 / config.d_model,
        "v": 1.0 / config.d_model,
        "o": 1.0 / (config.num_heads * config.d_kv),
        "relative_attention_bias": 1.0 / config.d_model,
        "wi": 1.0 / config.d_model,
        "wi_0": 1.0 / config.d_model,
        "wi_1": 1.0 / config.d_model,
        "wo": 1.0 / config.d_ff,
        "shared": 1.0,
        "embed_tokens": 1.0,
    }
    return math.sqrt(variances[part]) * config.initializer_factor


class PretrainedWeights:
    """The encoder's weights from a Hugging Face folder or hub name; the projection, which has none there, is fresh.

    safetensors are read by range. Older `pytorch_model.bin` files are mapped into memory by torch's restricted loader,
    which builds tensors and nothing else.
    """

    def __init__(self, name: str, fresh: FreshWeights) -> None:
        self.name = name
        self.fresh = fresh
        self.files = find_weight_files(name)
        self.place: dict[str, Path] = {}
        for file in self.files:
            self.place |= dict.fromkeys(_names_in(file), file)
        self._check()

    def _check(self) -> None:
        missing = [n for n in self.fresh.shapes if not is_projection(n) and self._stored_name(n) is None]
        if missing:
            raise ModelError(
                f"{self.name} has no weights for {missing[0]} ({len(missing)} are missing)",
                expected="a T5-family encoder, or an encoder-decoder that holds one",
                mend="check model.backbone and model.layers",
            )

    def _stored_name(self, name: str) -> str | None:
        own = name.split(".encoder.", 1)[1]
        names = (own, "encoder." + own) if own != "shared.weight" else (own, "encoder.embed_tokens.weight")
        return next((n for n in names if n in self.place), None)

    def read(self, name: str, start: int, length: int) -> Tensor:
        stored = None if is_projection(name) else self._stored_name(name)
        if stored is None:
            return self.fresh.read(name, start, length)
        file, shape = self.place[stored], self.fresh.shapes[name]
        if file.suffix == ".safetensors":
            return read_range(file, stored, shape, start, length)
        values = _mapped(file)[stored]
        refuse_shape(file, stored, tuple(values.shape), shape)
        return values.flatten()[start : start + length].float()


def is_projection(name: str) -> bool:
    return "_tower.projection." in name


def _names_in(file: Path) -> list[str]:
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    return list(_mapped(file))


@functools.lru_cache(maxsize=8)
def _mapped(file: Path) -> dict[str, Tensor]:
    try:
        return torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"{file} cannot be mapped into memory: {str(error).splitlines()[0]}",
            expected="safetensors, or a .bin file written by torch 1.6 or later",
            mend="load it once with transformers and save it again: save_pretrained writes safetensors",
        ) from None


def read_range(file: Path, name: str, shape: tuple[int, ...], start: int, length: int) -> Tensor:
    """Elements of the flattened tensor; only the rows that hold them are read."""
    with safe_open(file, framework="pt") as opened:
        stored = opened.get_slice(name)
        refuse_shape(file, name, tuple(stored.get_shape()), shape)
        width = math.prod(shape[1:])
        first, last = start // width, -(-(start + length) // width)
        rows = stored[first:last].flatten().float()
    return rows[start - first * width :][:length]


def refuse_shape(file: Path, name: str, stored: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if stored != expected:
        raise ModelError(
            f"{name} in {file} has shape {stored}",
            expected=f"{expected}, as config.json beside it says",
            mend="check that config.json and the weights belong together",
        )


def find_weight_files(name: str) -> list[Path]:
    """The weight files of a local folder, or of a hub name (downloaded to the cache).

    Raises:
        ModelError: there are none.
    """
    for single in ("model.safetensors", "pytorch_model.bin"):
        found = _file_of(name, single)
        if found is not None:
            return [found]
        index = _file_of(name, f"{single}.index.json")
        if index is not None:
            parts = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            files = [_file_of(name, part) for part in parts]
            if all(files):
                return [file for file in files if file is not None]
    raise ModelError(
        f"backbone {name!r} has no weights that can be found",
        expected="model.safetensors or pytorch_model.bin, whole or in parts with their index",
        mend="check the name; without internet, copy the folder to this machine and give its path",
    )


def _file_of(name: str, file: str) -> Path | None:
    if Path(name).is_dir():
        path = Path(name) / file
        return path if path.is_file() else None
    from transformers.utils import cached_file

    try:
        found = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
    except OSError:
        return None
    return Path(found) if found else None
