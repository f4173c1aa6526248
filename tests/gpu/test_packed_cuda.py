"""Packed attention on a GPU: the compiled FlexAttention kernel against padded eager attention, and what it is worth.

Run by `bash tests/gpu/run.sh`; without an NVIDIA GPU every test here is skipped. The comparisons are those of
`tests/models/test_attention.py`, made on the GPU.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packed_twins import attending, embedded, error, gradients, made_texts, tower_of, worst
from torch import Tensor

from largede.models.attention import FlexPacking, compiled_flex, document_mask
from largede.models.presets import PRESETS
from largede.streams.chunks import make_chunks, make_packed_chunks

DEVICE = torch.device("cuda")


@pytest.mark.parametrize("preset", PRESETS)
@torch.no_grad()
def test_flex_equals_padded_eager_attention(preset: str) -> None:
    tower, texts = tower_of(preset, layers=1 if preset == "gtr-xxl" else 2).to(DEVICE), made_texts()
    truth = embedded(tower, "eager", texts)
    float32 = error(embedded(tower, FlexPacking, texts), truth)
    tower.bfloat16()
    eager, flex = error(embedded(tower, "eager", texts), truth), error(embedded(tower, FlexPacking, texts), truth)
    print(f"{preset}: float32 {float32:.1e}; bf16 against float32: eager {eager:.1e}, flex {flex:.1e}")
    # A kernel of tiles orders its sums otherwise, and its exponential is a power of two: looser than on the CPU.
    assert float32 < 2e-5
    assert flex < 1.5 * eager


@pytest.mark.parametrize("checkpointed", [False, True])
def test_every_gradient_equals_padded_eager_attention(checkpointed: bool) -> None:
    tower, texts = tower_of("smoke").to(DEVICE), made_texts()
    truth = gradients(tower, "eager", texts)
    found, name = worst(gradients(tower, FlexPacking, texts, checkpointed=checkpointed), truth)
    print(f"float32 gradients, checkpointing {checkpointed}: worst {found:.1e} ({name})")
    assert found < 1e-4
    tower.encoder.bfloat16()
    eager = gradients(tower, "eager", texts)
    ours = gradients(tower, FlexPacking, texts, checkpointed=checkpointed)
    for name, gradient in truth.items():
        print(
            f"bf16 gradients: eager {error(eager[name], gradient):.1e}, flex {error(ours[name], gradient):.1e} {name}"
        )
        assert error(ours[name], gradient) < 2 * error(eager[name], gradient) + 1e-4, name


def test_one_compilation_for_each_shape_with_and_without_gradient() -> None:
    from torch._dynamo.utils import counters

    tower = tower_of("smoke").to(DEVICE)
    torch._dynamo.reset()
    compiled_flex.cache_clear()
    counters.clear()
    shapes = (128, 256, 512, 1024)
    with attending(tower, FlexPacking):
        for seed in range(3):
            for shape in shapes:
                [chunk] = make_packed_chunks(made_texts(tuple([shape // 4 - seed] * 4), seed), shape)
                chunk = chunk.to(DEVICE)
                with torch.no_grad():
                    tower(*chunk.inputs)
                tower(*chunk.inputs).sum().backward()
            print(f"graphs after pass {seed + 1}: {counters['stats']['unique_graphs']}")
            assert counters["stats"]["unique_graphs"] == 2 * len(shapes)


@torch.no_grad()
def test_the_first_pass_is_repeated_bit_for_bit_by_the_second() -> None:
    tower, texts = tower_of("smoke").to(DEVICE), made_texts()
    first = embedded(tower, FlexPacking, texts)
    with torch.enable_grad():
        second = embedded(tower, FlexPacking, texts)
    print(f"with a graph against without: {error(second, first):.1e}")
    assert error(second, first) < 1e-6


def test_the_whole_step_packed_equals_padded(tmp_path: Path) -> None:
    """GradCache under ZeRO-3, float32, several chunks of both kinds."""
    from batches_for_tests import MadeBatch, small_recipe
    from recording import Recording

    from largede.models.build import build_dual_encoder
    from largede.training.engine import build_engine
    from largede.training.gradcache import GradCacheStep
    from largede.training.optimizers import client_optimizer

    def step(**dotted: Any) -> tuple[float, dict[str, Tensor]]:
        recipe = small_recipe(tmp_path, 3, batch__chunk_tokens=256, **dotted)
        engine = build_engine(build_dual_encoder(recipe.model), recipe, optimizer_type=Recording)
        report = GradCacheStep(engine, recipe)(MadeBatch(recipe.batch.queries, 3).of_rank(0, 1))
        engine.step()
        found = {n: g.cpu() for n, (_, g) in client_optimizer(engine).gradients.items()}
        engine.destroy()
        return report.score.loss, found

    padded_loss, padded = step(engine__attention="padded")
    packed_loss, packed = step(engine__attention="packed")
    found, name = worst(packed, padded)
    print(f"whole step: loss {packed_loss:.6f} against {padded_loss:.6f}, worst gradient {found:.1e} ({name})")
    assert abs(packed_loss - padded_loss) / padded_loss < 1e-5
    # Kernels of another order and ReLUs that flip, seen through a temperature of 0.01.
    assert found < 1e-3


def seconds_per_call(call: Callable[[], Any], calls: int = 5) -> float:
    for _ in range(2):
        call()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(calls):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / calls


@pytest.mark.parametrize("heads", [12, 128])
def test_time_of_the_gradient_of_the_bias_table(heads: int) -> None:
    """Not a check but a figure: the kernel adds every pair of tokens into the table atomically; what does that cost?"""
    width = 64 if heads == 12 else 128
    lengths = np.random.default_rng(0).integers(16, 512, 64)
    document_T = torch.from_numpy(np.repeat(np.arange(64), lengths)[:16384]).to(DEVICE)
    document_T = torch.cat([document_T, document_T[-1:].expand(16384 - len(document_T))])
    states = [torch.randn(1, heads, 16384, width, device=DEVICE, dtype=torch.bfloat16) for _ in range(3)]
    mask = document_mask(document_T)
    seconds = {}
    for wants_gradient in (False, True):
        table_HR = torch.randn(heads, 257, device=DEVICE, requires_grad=wants_gradient)
        inputs = [state.clone().requires_grad_() for state in states]
        seconds[wants_gradient] = seconds_per_call(
            lambda given=inputs, table=table_HR: compiled_flex()(*given, table, mask, 1.0).sum().backward()
        )
    print(
        f"FlexAttention forward and backward, 16,384 tokens, {heads} heads of {width}, bf16: "
        f"{1e3 * seconds[False]:.1f} ms without the table's gradient, {1e3 * seconds[True]:.1f} ms with it"
    )


def test_time_of_packed_against_padded() -> None:
    """Not a check but a figure: forward and backward of GTR-Base over passages of 16 to 512 tokens, bf16."""
    from dataclasses import replace

    from transformers import T5EncoderModel

    from largede.models.build import t5_config
    from largede.models.tower import Tower

    lengths = np.random.default_rng(0).gamma(3.0, 50.0, 512).clip(16, 512).astype(int)
    texts = made_texts(tuple(lengths.tolist()))
    encoder = T5EncoderModel(t5_config(replace(PRESETS["gtr-base"], vocabulary=512)))
    tower = Tower(encoder.bfloat16(), None, normalize=True).to(DEVICE)
    for how, make in (("sdpa", make_chunks), (FlexPacking, make_packed_chunks)):
        with attending(tower, how):
            chunks = [chunk.to(DEVICE) for chunk in make(texts, 16384)]

            def once(chunks: Any = chunks) -> None:
                for chunk in chunks:
                    tower(*chunk.inputs).sum().backward()

            torch.cuda.reset_peak_memory_stats()
            seconds = seconds_per_call(once)
        padding = 1 - len(texts.tokens) / sum(chunk.computed_tokens for chunk in chunks)
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(
            f"{make.__name__}: {len(texts.tokens) / seconds:,.0f} real tokens/s, padding {padding:.1%}, "
            f"{len(chunks)} chunks, peak {peak:.1f} GiB"
        )
