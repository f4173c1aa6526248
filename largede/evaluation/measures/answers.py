"""Open-domain question answering: whether an answer stands in the passages that were found first.

Matching is DPR's (Karpukhin et al. 2020; dpr/data/qa_validation.py): Unicode form NFD; tokens are runs of letters,
digits and marks, or single other visible characters; small letters; a passage holds an answer when the answer's tokens
stand in it one after the other. Titles are not looked at. One difference: an answer without any token matches nothing
here, there everything.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import regex

from largede.errors import DataError
from largede.evaluation.datasets.collection import ANSWER_CUTS
from largede.evaluation.measures.metrics import PerQuery
from largede.retrieval.corpus import Corpus, Qrels
from largede.retrieval.runs import Run

_TOKEN = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")


def answer_cuts(measures: Sequence[str], depth: int | None = None) -> list[int]:
    """The k of each Answer@k. Raises DataError for another measure, and for a k below 1 or above `depth`."""
    found = [re.fullmatch(r"Answer@([1-9]\d{0,8})", measure) for measure in measures]
    for measure, match in zip(measures, found, strict=True):
        if match is None or (depth is not None and int(match[1]) > depth):
            raise DataError(
                f"the measure {measure!r}" + (f" of lists of {depth:,} documents" if match else ""),
                expected=f"Answer@k with a k from 1 to {depth:,}" if depth else "Answer@k with a k from 1 on",
                mend="write it as in Answer@20, or give --depth",
            )
    return [int(match[1]) for match in found if match]


def answer_recall(
    run: Run, corpus: Corpus, answers: Mapping[str, Sequence[str]], cuts: Sequence[int] = ANSWER_CUTS
) -> PerQuery:
    """`Answer@k` of every query: 1.0 when one of its answers stands in one of its first k passages, else 0.0.

    A query that the run does not hold counts as 0. Passages are read window by window of ranks (1, 2 to 5, 6 to 20
    ...), in the order of the corpus, each once per window however many queries found it, and only for queries that have
    no hit yet. Raises DataError for cuts that are not positive or a document that the corpus does not hold.
    """
    ends = sorted(set(cuts))
    if not ends or ends[0] < 1:
        raise DataError(f"the cuts {list(cuts)}", expected="whole numbers from 1 on", mend="give the ranks to count at")
    needles = {query: _needles(accepted) for query, accepted in answers.items()}
    deepest = max(ends)
    rows = corpus.ids.rows_of({id_ for query in answers if query in run for id_ in run[query].ids[:deepest]})
    values: PerQuery = {f"Answer@{cut}": dict.fromkeys(answers, 0.0) for cut in ends}
    open_queries = [query for query in answers if query in run and needles[query]]
    for begin, end in zip([0, *ends], ends, strict=False):
        asking = _asking(run, rows, open_queries, begin, end)
        found = _hits(corpus, asking, needles)
        for cut in ends:
            if cut >= end:
                values[f"Answer@{cut}"].update(dict.fromkeys(found, 1.0))
        open_queries = [query for query in open_queries if query not in found]
    return values


def judged_by_answers(runs: Iterable[Run], corpus: Corpus, answers: Mapping[str, Sequence[str]]) -> Qrels:
    """As judgements: which of the documents in these (short) lists hold an answer to the query that found them."""
    needles = {query: _needles(accepted) for query, accepted in answers.items()}
    lists = list(runs)
    rows = corpus.ids.rows_of({id_ for run in lists for query in answers if query in run for id_ in run[query].ids})
    asking: dict[int, set[str]] = {}
    for run in lists:
        for row, queries in _asking(run, rows, [query for query in answers if query in run], 0, None).items():
            asking.setdefault(row, set()).update(queries)
    wanted = sorted(asking)
    judged: Qrels = {query: {} for query in answers}
    for row, passage in zip(wanted, corpus.at(wanted), strict=True):
        hay = _tokens(passage.text)
        for query in asking[row]:
            if any(needle in hay for needle in needles[query]):
                judged[query][passage.id] = 1
    return judged


def has_answer(text: str, answers: Iterable[str]) -> bool:
    """Whether one of the answers stands in the text."""
    hay = _tokens(text)
    return any(needle in hay for needle in _needles(answers))


def open_answers(folder: Path) -> dict[str, list[str]]:
    """Query id to its answers, of a folder whose queries.jsonl carries them. Raises DataError for a query without."""
    path = folder / "queries.jsonl"
    found: dict[str, list[str]] = {}
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                id_, answers = _answers_of(path, number, line)
                found[id_] = answers
    if not found:
        raise DataError(f"{path} is empty", expected="questions with answers", mend="check how it was made")
    return found


def _answers_of(path: Path, number: int, line: str) -> tuple[str, list[str]]:
    try:
        record = json.loads(line)
        id_, answers = record["_id"], record["metadata"]["answers"]
        right = isinstance(id_, str) and isinstance(answers, list) and all(isinstance(text, str) for text in answers)
    except (ValueError, KeyError, TypeError):
        right = False
    if not right or not any(text.strip() for text in answers):
        raise DataError(
            f"{path}, line {number}: a question without answers",
            expected='{"_id": ..., "text": ..., "metadata": {"answers": ["..."]}}',
            mend="correct that line, or add qrels/ to be evaluated with them",
        )
    return id_, answers


def _asking(
    run: Run, rows: Mapping[str, int], queries: Iterable[str], begin: int, end: int | None
) -> dict[int, list[str]]:
    """Row of the corpus to the queries that have it at ranks begin + 1 to end (None: to the last)."""
    asking: dict[int, list[str]] = {}
    for query in queries:
        for id_ in run[query].ids[begin:end]:
            if id_ not in rows:
                raise DataError(
                    f"the list of query {query!r} holds {id_!r}, which is not in the corpus",
                    expected="a run over this corpus",
                    mend="search this corpus again",
                )
            asking.setdefault(rows[id_], []).append(query)
    return asking


def _hits(corpus: Corpus, asking: Mapping[int, Sequence[str]], needles: Mapping[str, Sequence[str]]) -> set[str]:
    """The queries of which a passage here holds an answer."""
    found: set[str] = set()
    wanted = sorted(asking)
    for row, passage in zip(wanted, corpus.at(wanted), strict=True):
        waiting = [query for query in asking[row] if query not in found]
        if waiting:
            hay = _tokens(passage.text)
            found.update(query for query in waiting if any(needle in hay for needle in needles[query]))
    return found


def _needles(answers: Iterable[str]) -> list[str]:
    return [needle for needle in dict.fromkeys(map(_tokens, answers)) if needle != "  "]


def _tokens(text: str) -> str:
    """The tokens with a space before, between and behind: as no token holds one, runs of tokens are substrings.

    Joined before they become small: no rule for that looks beyond a space, so it is the same as token by token.
    """
    return f" {' '.join(_TOKEN.findall(unicodedata.normalize('NFD', text)))} ".lower()
