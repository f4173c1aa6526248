"""A SentencePiece vocabulary in T5's layout, trained on the texts of pair files.

T5's layout: unigram pieces, <pad> 0, </s> 1, <unk> 2, no beginning-of-sequence token. The folder written is one that
`transformers.AutoTokenizer.from_pretrained` loads: `spiece.model`, `tokenizer_config.json` naming T5Tokenizer, and a
`config.json` of model_type t5, without which transformers falls back to another tokenizer.

Texts are case-folded by the normalizer inside `spiece.model`: a small model cannot afford to learn each word twice.
"""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_tools.inputs import input_files
from data_tools.pairs import PairReader
from largede.errors import DataError
from largede.files import refuse_existing, write_json, writing, writing_folder
from largede.streams.pieces import same_cut
from largede.text import text_key

PAD, EOS, UNK = 0, 1, 2
MOST_TEXTS = 20_000
"""Texts trained on; beyond this the pieces hardly change and the time grows in proportion."""
MOST_CHARACTERS = 600
"""Of one text: the head of a passage, which is also what the model reads."""
MOST_UNKNOWN_SHARE = 0.01


def write_vocabulary(pair_files: Iterable[Path], out: Path, size: int, seed: int = 0) -> None:
    """Train, write and check; `out` appears complete or not at all, equal for equal arguments.

    Raises DataError when `out` already holds something, a pair file cannot be read, the texts are too few for `size`
    pieces, or the written folder does not load back as the vocabulary that was trained.
    """
    refuse_existing(out, DataError)
    texts = _sample(pair_files, seed)
    model = _train(texts, size)
    with writing_folder(out) as part:
        _write_folder(part, model, size)
        check_vocabulary(part, size, texts[:1000])


def check_vocabulary(folder: Path, size: int, texts: list[str]) -> None:
    """Load the folder as a user would and raise DataError unless it is what SentencePiece itself makes of `texts`."""
    import sentencepiece
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    special = (len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    if special != (size, PAD, EOS, UNK):
        raise _unfaithful(f"has (size, pad, eos, unk) {special}, not {(size, PAD, EOS, UNK)}")
    loaded = tokenizer(texts)["input_ids"]
    for text, ids, pieces in zip(texts, loaded, processor.encode(texts), strict=True):
        if not same_cut(processor, ids, [*pieces, EOS]):
            raise _unfaithful(f"reads {text[:60]!r} as {ids[:8]}, SentencePiece as {pieces[:8]}")
    unknown = sum(ids.count(UNK) for ids in loaded) / max(1, sum(map(len, loaded)))
    if unknown > MOST_UNKNOWN_SHARE:
        raise _unfaithful(f"does not know {unknown:.1%} of the tokens of its own training texts")


def _unfaithful(how: str) -> DataError:
    return DataError(
        f"the vocabulary just written {how}",
        expected="a folder that AutoTokenizer loads as T5's SentencePiece model",
        mend="check the versions of transformers and sentencepiece against launch/constraints.txt",
    )


def _sample(pair_files: Iterable[Path], seed: int) -> list[str]:
    """At most MOST_TEXTS distinct texts, chosen and ordered by a seeded key, so by neither file order nor hash seed.

    Holds no more than a few times MOST_TEXTS texts in memory, however long the files are.
    """
    kept: dict[int, str] = {}
    files = input_files(list(pair_files))
    for pair in PairReader([file.path for file in files], counts=[file.pairs for file in files]):
        for text in (pair.query, pair.positive):
            line = " ".join(text.split())[:MOST_CHARACTERS]
            kept[text_key(f"{seed} {line}")] = line
        if len(kept) > 4 * MOST_TEXTS:
            kept = dict(sorted(kept.items())[:MOST_TEXTS])
    return [line for _, line in sorted(kept.items())[:MOST_TEXTS]]


def _train(texts: list[str], size: int) -> bytes:
    """The serialised SentencePiece model with exactly `size` pieces."""
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=size,
            normalization_rule_name="nmt_nfkc_cf",
            character_coverage=0.9995,
            pad_id=PAD,
            eos_id=EOS,
            unk_id=UNK,
            bos_id=-1,
            # Sums of floats depend on how texts are dealt to threads: a fixed number keeps the pieces equal everywhere.
            num_threads=2,
            shuffle_input_sentence=False,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(
            f"{len(texts)} texts give no vocabulary of {size} pieces ({str(error).splitlines()[-1][:200]})",
            expected="texts with more different words than pieces asked for",
            mend="give more pairs or a smaller --size",
        ) from error
    return model.getvalue()


def _write_folder(folder: Path, model: bytes, size: int) -> None:
    special = {"pad_token_id": PAD, "eos_token_id": EOS}
    tokenizer: dict[str, Any] = {
        "tokenizer_class": "T5Tokenizer",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        # The sentinels of T5's own pre-training: no dual encoder ever sees one.
        "extra_ids": 0,
    }
    with writing(folder / "spiece.model") as file:
        file.write(model)
    write_json(folder / "tokenizer_config.json", tokenizer)
    write_json(folder / "config.json", {"model_type": "t5", "vocab_size": size} | special)
