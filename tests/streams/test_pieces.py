import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.pairs import PairReader
from data_tools.vocabulary import write_vocabulary
from largede.models.build import load_tokenizer
from largede.streams.pieces import WithSentencePiece, WithTransformers, encoder_of, same_cut

SHARED = Path(os.environ.get("LARGEDE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
WORDS = [
    "which",
    "state",
    "answers",
    "naïve",
    "AAA",
    "000",
    "'''",
    "日本",
    "<pad>",
    "</s>",
    "\uff1c/s\uff1e",
    "\ufe64/s\ufe65",
    "\u0085",
    "\n",
    "<b>",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("vocabulary")
    lines = [
        f'{{"query": "which state is number {i} of {i * 7919 % 1000}?", "positive": "it answers {i * 31} naïvely"}}\n'
        for i in range(400)
    ]
    (folder / "pairs.jsonl").write_text("".join(lines))
    write_vocabulary([folder / "pairs.jsonl"], folder / "pieces", 100)
    return load_tokenizer(folder / "pieces")


def test_t5_tokenizers_run_on_sentencepiece_unless_told_otherwise(tokenizer: Any) -> None:
    assert isinstance(encoder_of(tokenizer, "auto"), WithSentencePiece)
    assert isinstance(encoder_of(tokenizer, "transformers"), WithTransformers)


def test_without_a_sentencepiece_file_or_with_words_of_its_own_a_tokenizer_is_not_imitated(
    tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    assert isinstance(encoder_of(load_tokenizer(tmp_path), "auto"), WithTransformers)
    added = load_tokenizer(tokenizer.name_or_path)
    added.truncation_side = "left"
    assert isinstance(encoder_of(added, "auto"), WithTransformers)
    added.truncation_side = "right"
    assert isinstance(encoder_of(added, "auto"), WithSentencePiece)
    added.add_tokens(["number"])
    assert isinstance(encoder_of(added, "auto"), WithTransformers)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_sentencepiece_and_transformers_agree(tokenizer: Any, data: st.DataObject) -> None:
    free = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
    texts = data.draw(st.lists(st.lists(st.sampled_from(WORDS) | free, max_size=8).map(" ".join), max_size=4))
    plain = WithTransformers(tokenizer)
    fast = WithSentencePiece(tokenizer, plain)
    for one, other in zip(fast(texts, 10_000), plain(texts, 10_000), strict=True):
        assert same_cut(fast.processor, one, other)


def test_long_texts_are_cut_before_the_end_of_sequence(tokenizer: Any) -> None:
    texts = ["which state " * 50, "which", "", "</s> state " * 50]
    plain = WithTransformers(tokenizer)
    fast = WithSentencePiece(tokenizer, plain)
    for limit in (1, 2, 7):
        assert fast(texts, limit) == plain(texts, limit)
        assert all(len(ids) <= limit and ids[-1] == 1 for ids in fast(texts, limit))


@pytest.mark.parametrize("name", ["stackexchange", "squad_dev"])
def test_real_texts_with_the_vocabulary_of_t5(tmp_path: Path, name: str) -> None:
    source, model = SHARED / "pairs" / f"{name}.jsonl.gz", SHARED / "t5_vocabulary" / "spiece.model"
    if not (source.exists() and model.exists()):
        pytest.skip("the shared data folder is not there")
    (tmp_path / "spiece.model").write_bytes(model.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "extra_ids": 100}')
    (tmp_path / "config.json").write_text('{"model_type": "t5", "vocab_size": 32128}')
    texts = [text for pair in PairReader([source]) for text in (pair.query, pair.positive)][:2000]
    plain = WithTransformers(load_tokenizer(tmp_path))
    fast = WithSentencePiece(load_tokenizer(tmp_path), plain)
    cuts = list(zip(fast(texts, 10_000), plain(texts, 10_000), strict=True))
    assert sum(one != other for one, other in cuts) <= 1
    assert all(same_cut(fast.processor, one, other) for one, other in cuts)


def test_cuts_are_the_same_when_they_tie_and_not_when_they_lose(tokenizer: Any) -> None:
    processor = WithSentencePiece(tokenizer, WithTransformers(tokenizer)).processor
    best = processor.encode("which state number")
    letters = processor.piece_to_id(list("▁which▁state▁number"))
    assert best != letters
    assert same_cut(processor, best, best)
    assert not same_cut(processor, best, letters)
    assert not same_cut(processor, best, processor.encode("which number"))
