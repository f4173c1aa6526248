"""Texts into token ids, by SentencePiece itself where the tokenizer is T5's, otherwise by transformers.

transformers runs T5's tokenizer on a second implementation of SentencePiece's search that takes several times as long.
The two agree but for runs of unknown characters, and for ties: where two ways to cut a word have the same score to the
last digits ("BB|B", "B|BB") they may choose differently. T5 was trained with SentencePiece's own choice. Texts that
spell out a special token ("</s>", "<extra_id_0>") always go to transformers, which tells it from plain text.
"""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Encode = Callable[[Sequence[str], int], list[list[int]]]
"""(texts, limit) -> token ids of each text, the end-of-sequence token last, at most `limit` of them."""

_PROBE = ("Which  state\u0085is <this>?", "naïve ﬁne Ⅷ ½ '' -- 12,000 µm", "日本語 한국어 😀", "a\u200bb\tc\n", "")


def encoder_of(tokenizer: Any, backend: str = "auto", threads: int = 1) -> Encode:
    """How texts become ids: `backend` is 'auto' or 'transformers' (`data.tokenizer_backend`)."""
    plain = WithTransformers(tokenizer)
    if backend == "transformers" or not _is_sentencepiece(tokenizer):
        return plain
    fast = WithSentencePiece(tokenizer, plain, threads)
    # A tokenizer that does more than its SentencePiece file (lower-casing, say) is not imitated.
    return fast if fast(_PROBE, 512) == plain(_PROBE, 512) else plain


class WithTransformers:
    """The plain twin: whatever the tokenizer says."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        if not texts:
            return []
        encoded = self._tokenizer(
            list(texts),
            truncation=True,
            max_length=limit,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids


class WithSentencePiece:
    """T5's tokenizer: the pieces of its `spiece.model`, then the end-of-sequence token."""

    def __init__(self, tokenizer: Any, plain: Encode, threads: int = 1) -> None:
        import sentencepiece

        self.processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer.vocab_file))
        self._eos = tokenizer.eos_token_id
        self._threads = threads
        self._plain = plain
        self._special = re.compile("|".join(map(re.escape, tokenizer.get_added_vocab())) or r"(?!)")

    def __call__(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        # Next line is white space to transformers, and unknown to SentencePiece.
        pieces = self.processor.encode([text.replace("\u0085", " ") for text in texts], num_threads=self._threads)
        ids = [[*found[: limit - 1], self._eos] for found in pieces]
        spelling = [i for i, text in enumerate(texts) if self._spells_special(text)]
        for i, found in zip(spelling, self._plain([texts[i] for i in spelling], limit), strict=True):
            ids[i] = found
        return ids

    def _spells_special(self, text: str) -> bool:
        # Those of full or small width are made plain ones on the way.
        return ("<" in text and self._special.search(text) is not None) or "\uff1c" in text or "\ufe64" in text


def same_cut(processor: Any, one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two lists of pieces are equal, or two cuts of one text that score alike to the last digits."""
    if list(one) == list(other):
        return True
    texts = ["".join(map(processor.id_to_piece, ids)) for ids in (one, other)]
    scores = [sum(map(processor.get_score, ids)) for ids in (one, other)]
    return texts[0] == texts[1] and math.isclose(*scores, rel_tol=1e-5)


def _is_sentencepiece(tokenizer: Any) -> bool:
    if type(tokenizer).__name__ not in ("T5Tokenizer", "T5TokenizerFast") or tokenizer.truncation_side != "right":
        return False
    # Folders that transformers alone saved hold tokenizer.json, and such a tokenizer has no such attribute.
    file = getattr(tokenizer, "vocab_file", None) or ""
    has_words_of_its_own = any("<" not in added for added in tokenizer.get_added_vocab())
    return Path(file).is_file() and not has_words_of_its_own
