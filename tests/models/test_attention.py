"""Packed attention equals padded eager attention, on every preset, and so do its gradients.

Four paths on the same weights: padded eager (the truth), padded SDPA, packed dense, packed Flex. On a CPU Flex runs
uncompiled; its gradients are checked through the graph that is compiled for a GPU, run by plain operations, so that
what is left for a GPU is the kernel (`tests/gpu/test_packed_cuda.py`).
"""

import functools
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from packed_twins import (
    TracedFlex,
    attending,
    embedded,
    error,
    flex_gradients_on_cpu,
    gradients,
    made_texts,
    tower_of,
    whole,
    worst,
)
from torch import nn
from torch.nn.attention import flex_attention as torch_flex

from largede.config.recipe import ModelConfig
from largede.errors import RecipeError
from largede.models.attention import (
    PACKED,
    DensePacking,
    FlexPacking,
    Packing,
    compiled_flex,
    document_mask,
    packing_for,
)
from largede.models.build import build_dual_encoder
from largede.models.pooling import packed_mean
from largede.models.presets import PRESETS
from largede.streams.chunks import make_packed_chunks

PACKINGS = pytest.mark.parametrize("packing", [DensePacking, FlexPacking])
WITH_GRADIENTS = pytest.mark.parametrize("packing", [DensePacking, TracedFlex])
FLOAT32 = 2e-6
"""Relative, of embeddings: the same float32 sums in another order; a few times the 3e-7 that was measured."""

pytestmark = pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile.*")


@functools.cache
def small_tower() -> Any:
    return tower_of("smoke")


@pytest.fixture
def gradients_of_flex() -> Iterator[None]:
    with flex_gradients_on_cpu():
        yield


@pytest.mark.parametrize(
    "preset", [pytest.param(name, marks=[pytest.mark.slow] if name == "gtr-xxl" else []) for name in PRESETS]
)
@torch.no_grad()
def test_every_path_equals_padded_eager_attention(preset: str) -> None:
    tower = tower_of(preset, layers=1 if preset == "gtr-xxl" else 2)
    texts = made_texts()
    truth = embedded(tower, "eager", texts)
    for how in ("sdpa", DensePacking, FlexPacking):
        assert error(embedded(tower, how, texts), truth) < FLOAT32, how
    tower.bfloat16()
    eager = error(embedded(tower, "eager", texts), truth)
    for how in ("sdpa", DensePacking, FlexPacking):
        found = error(embedded(tower, how, texts), truth)
        print(f"{preset} bf16 against float32: eager {eager:.1e}, {how} {found:.1e}")
        # Roundings of 2 ** -9 differ path by path, so no path is nearer to another than to float32: none may be
        # much farther from float32 than eager attention in bf16 is.
        assert found < 1.5 * eager, how


@WITH_GRADIENTS
@pytest.mark.parametrize("checkpointed", [False, True])
def test_every_gradient_equals_padded_eager_attention(
    packing: type[Packing], checkpointed: bool, gradients_of_flex: None
) -> None:
    texts = made_texts()
    truth = gradients(small_tower(), "eager", texts)
    ours = gradients(small_tower(), packing, texts, checkpointed=checkpointed)
    assert any("relative_attention_bias" in name for name in truth)
    # Sums over all pairs of tokens and ReLUs that flip: looser than the embeddings, and as the step's own criterion.
    assert worst(ours, truth)[0] < 1e-5, worst(ours, truth)


@WITH_GRADIENTS
def test_bf16_gradients_are_as_near_to_float32_as_padded_ones(packing: type[Packing], gradients_of_flex: None) -> None:
    tower, texts = tower_of("smoke"), made_texts()
    truth = gradients(tower, "eager", texts)
    tower.encoder.bfloat16()
    eager = gradients(tower, "eager", texts)
    ours = gradients(tower, packing, texts)
    for name, gradient in truth.items():
        # One or two percent of rounding, in other places on either path: a wrong gradient is fifty times that.
        assert error(ours[name], gradient) < 2 * error(eager[name], gradient) + 1e-6, name


class NoBias(DensePacking):
    def attend(self, query: Any, key: Any, value: Any, table: Any, scale: float) -> Any:
        return super().attend(query, key, value, table * 0, scale)


class Reversed(DensePacking):
    def attend(self, query: Any, key: Any, value: Any, table: Any, scale: float) -> Any:
        return super().attend(query, key, value, table.flip(1), scale)


class NoMask(DensePacking):
    @classmethod
    def of(cls, document_T: torch.Tensor) -> DensePacking:
        return super().of(torch.zeros_like(document_T))


@pytest.mark.parametrize("broken", [NoBias, Reversed, NoMask])
@torch.no_grad()
def test_the_comparison_notices_a_wrong_bias_or_mask(broken: type[Packing]) -> None:
    texts = made_texts()
    assert error(embedded(small_tower(), broken, texts), embedded(small_tower(), "eager", texts)) > 1e-2


def test_the_pass_with_a_graph_repeats_the_one_without_bit_for_bit() -> None:
    with torch.no_grad():
        first = embedded(small_tower(), DensePacking, made_texts())
    assert torch.equal(embedded(small_tower(), DensePacking, made_texts()), first)


@PACKINGS
@torch.no_grad()
def test_an_embedding_does_not_depend_on_its_neighbours(packing: type[Packing]) -> None:
    texts, tower = made_texts(), small_tower()
    together = embedded(tower, packing, texts)
    with attending(tower, packing):
        for chunk in make_packed_chunks(texts, 150):
            torch.testing.assert_close(tower(*chunk.inputs), together[chunk.rows], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", ["T5", "MT5", "UMT5"])
@torch.no_grad()
def test_the_whole_family_can_be_packed(family: str) -> None:
    """mT5 as T5 but gated; umT5 has a bias in every block."""
    import transformers

    config = getattr(transformers, f"{family}Config")(
        vocab_size=512, d_model=64, d_kv=16, d_ff=32, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    tower = tower_of("smoke")
    tower.encoder, tower.projection = getattr(transformers, f"{family}EncoderModel")(config).eval(), None
    for module in tower.encoder.modules():
        if hasattr(module, "relative_attention_bias"):
            nn.init.normal_(module.relative_attention_bias.weight)
    texts = made_texts()
    truth = embedded(tower, "eager", texts)
    for packing in (DensePacking, FlexPacking):
        assert error(embedded(tower, packing, texts), truth) < FLOAT32, packing


@torch.no_grad()
def test_the_table_holds_the_bias_of_every_distance() -> None:
    tower = small_tower()
    attention = tower.encoder.encoder.block[0].layer[0].SelfAttention
    dense_HTT = attention.compute_bias(600, 600)[0]
    with attending(tower, DensePacking):
        table_HR = attention.compute_bias(600, 600)
    assert table_HR.shape == (2, 257)
    assert table_HR.dtype == torch.float32
    place_T = torch.arange(600)
    column_TT = (place_T[None, :] - place_T[:, None]).clamp(-128, 128) + 128
    assert torch.equal(table_HR[:, column_TT], dense_HTT)


@pytest.mark.parametrize("tokens", [128, 640])
@pytest.mark.parametrize("documents", [1, 3, 40])
def test_the_block_mask_is_the_one_torch_would_make(tokens: int, documents: int) -> None:
    document_T = torch.randint(0, documents, (tokens,), generator=torch.Generator().manual_seed(tokens)).sort().values
    ours = document_mask(document_T)
    theirs = torch_flex.create_block_mask(ours.mask_mod, None, None, tokens, tokens, device="cpu")
    assert ours.shape == theirs.shape
    assert torch.equal(ours.to_dense(), theirs.to_dense())
    # Whole tiles are those in which nothing is looked up.
    assert torch.equal(ours.full_kv_num_blocks, theirs.full_kv_num_blocks)
    assert torch.equal(ours.full_q_num_blocks, theirs.full_q_num_blocks)


@torch.no_grad()
def test_one_compilation_for_each_shape_and_none_for_a_new_batch() -> None:
    from torch._dynamo.utils import counters

    tower = small_tower()
    compiled = compiled_flex("eager")

    class Compiled(FlexPacking):
        def attend(self, query: Any, key: Any, value: Any, table: Any, scale: float) -> Any:
            return compiled(query, key, value, table, self.mask, scale)

    torch._dynamo.reset()
    counters.clear()
    with attending(tower, Compiled):
        for seed in range(3):
            for shape in (128, 256, 640):
                lengths = made_texts(tuple([shape // 4 - seed] * 4), seed)
                [chunk] = make_packed_chunks(lengths, shape)
                assert chunk.computed_tokens == shape
                tower(*chunk.inputs)
            assert counters["stats"]["unique_graphs"] == 3
    torch._dynamo.reset()


@torch.no_grad()
def test_more_shapes_than_dynamo_allows_are_an_error_rather_than_dense_scores() -> None:
    from torch._dynamo.exc import FailOnRecompileLimitHit

    compiled = compiled_flex("eager")
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=2), pytest.raises(FailOnRecompileLimitHit):
        for tokens in (128, 256, 384, 512):
            states = torch.randn(1, 1, tokens, 16)
            compiled(states, states, states, torch.zeros(1, 257), document_mask(torch.zeros(tokens).long()), 1.0)
    torch._dynamo.reset()


def test_dropout_of_attention_weights_is_left_out_and_the_others_stay() -> None:
    texts = made_texts()
    tower = tower_of("smoke", dropout=0.5)
    tower.train()
    others = [module for module in tower.modules() if isinstance(module, nn.Dropout)]

    def noise(how: Any) -> float:
        with torch.no_grad():
            return error(embedded(tower, how, texts), embedded(tower, how, texts))

    for how in ("eager", DensePacking, FlexPacking):
        assert noise(how) > 0.1, how
    for module in others:
        module.p = 0.0
    assert noise("eager") > 0.1, "the check would not notice that weights fall out"
    for packing in (DensePacking, FlexPacking):
        assert noise(packing) == 0.0


def test_the_pooled_mean_is_that_of_each_document_and_so_is_its_gradient() -> None:
    state_TH = torch.randn(9, 3, dtype=torch.float32, requires_grad=True)
    length_B = torch.tensor([4, 0, 3])
    pooled_BH = packed_mean(state_TH, length_B)
    expected = torch.stack([state_TH[:4].mean(0), torch.zeros(3), state_TH[4:7].mean(0)])
    torch.testing.assert_close(pooled_BH, expected)
    direction_BH = torch.randn(3, 3)
    [ours] = torch.autograd.grad((pooled_BH * direction_BH).sum(), state_TH)
    [truth] = torch.autograd.grad((expected * direction_BH).sum(), state_TH)
    torch.testing.assert_close(ours, truth)
    assert ours[7:].abs().sum() == 0.0
    assert packed_mean(state_TH.detach().bfloat16(), length_B).dtype == torch.float32


def test_what_the_setting_means() -> None:
    assert packing_for("auto", "t5", on_gpu=True) is FlexPacking
    assert packing_for("auto", "t5", on_gpu=False) is None
    assert packing_for("auto", "bert", on_gpu=True) is None
    assert packing_for("packed", "umt5", on_gpu=False) is DensePacking
    assert packing_for("padded", "t5", on_gpu=True) is None
    with pytest.raises(RecipeError, match=r"(?s)of type bert.*T5 family.*engine\.attention to padded"):
        packing_for("packed", "bert", on_gpu=True)


def test_both_towers_are_packed_and_the_saved_config_does_not_say_so(tmp_path: Path) -> None:
    model = build_dual_encoder(ModelConfig(backbone="smoke", layout="ade"))
    assert not model.is_packed
    model.choose_attention("packed", on_gpu=False)
    assert model.is_packed
    [chunk] = make_packed_chunks(made_texts((3, 4)), 60)
    sides = [model(side, *chunk.inputs) for side in ("query", "passage")]
    assert not torch.equal(*sides)
    model.query_tower.encoder.save_pretrained(tmp_path)
    assert PACKED not in json.dumps(json.loads((tmp_path / "config.json").read_text()))


def test_no_warning_of_ours_when_packed(recwarn: pytest.WarningsRecorder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with attending(small_tower(), DensePacking):
            small_tower()(*whole(small_tower(), made_texts((3, 4))).inputs)
