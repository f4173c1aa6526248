"""Whether pairs are as `Pair.from_dict` makes them: texts stripped, none empty that may not be, lists in parallel."""

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from largede.errors import DataError
from largede.streams.pair import Pair

_TEXTS = ("query", "positive", "title", "query_id", "positive_id", "group", "source")


def pair_problem(pair: Pair, where: str) -> str | None:
    """What is wrong with a pair out of a block, opening with `where`, or None."""
    try:
        again = Pair.from_dict(pair.to_dict(), where)
    except DataError as error:
        return error.given
    except (TypeError, ValueError, AttributeError) as error:
        return f"{where} has values of the wrong kind ({error})"
    return None if again == pair else f"{where} has texts or lists in another form than `largede-data shard` writes"


def all_sound(pairs: Sequence[Pair]) -> bool:
    """True only when no pair has a problem; the same answer as `pair_problem` for each, several times faster."""
    columns = dict(zip(Pair._fields, zip(*pairs, strict=True), strict=True))
    return (
        all(_are_texts(columns[name]) for name in _TEXTS)
        and all(columns["query"])
        and all(columns["positive"])
        and all(_are_lists_of_texts(columns[name]) for name in ("negatives", "other_positives"))
        and all(_run_parallel(columns[name], columns["negatives"]) for name in ("negative_titles", "negative_ids"))
        and (not any(score is not None for score in columns["score"]) or all(map(_is_score, columns["score"])))
    )


def _are_texts(values: Sequence[Any]) -> bool:
    # Whole columns go through functions written in C; half characters were refused when the block was decoded.
    return set(map(type, values)) <= {str} and all(map(str.__eq__, values, map(str.strip, values)))


def _are_lists_of_texts(values: Sequence[Any]) -> bool:
    if not any(values):
        return set(map(type, values)) == {tuple}
    if set(map(type, values)) != {tuple}:
        return False
    texts = _flat(values)
    return _are_texts(texts) and all(texts)


def _run_parallel(lists: Sequence[Any], negatives: Sequence[tuple[str, ...]]) -> bool:
    """Titles or ids: none at all, or one for each negative, of which one at least is no empty text."""
    if set(map(type, lists)) != {tuple}:
        return False
    given = [(some, beside) for some, beside in zip(lists, negatives, strict=True) if some]
    return all(len(some) == len(beside) and any(some) for some, beside in given) and _are_texts(
        _flat(some for some, _ in given)
    )


def _flat(lists: Iterable[tuple[Any, ...]]) -> list[Any]:
    return list(chain.from_iterable(lists))


def _is_score(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and math.isfinite(value))
