"""MS MARCO's passage files, and the same with titles as RocketQA publishes it. What a file holds is told by its name:

- `collection*`, `corpus*`, `para*`: id, text, or id, title, text; `para.title*`: id, title;
- `queries*`, `*.query*`: id, text;
- `qrels*`: query id, 0, passage id, grade (or without the 0, or ids alone), between tabs or blanks;
- `qidpidtriples*`: query id, positive id, negative id, the lines of one query together, as published;
- `*hard-negatives*`: sentence-transformers' JSON lines, {"qid", "pos", "neg": {system: [passage ids, best first]}}; ids
  may be objects with `pid` and `ce-score`.

A query's positives are those of the qrels alone; its negatives are drawn from the other two.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from data_tools.dropped import Dropped
from data_tools.format import Format, Record, option, plain_files
from data_tools.readers.draw import draw
from data_tools.readers.judged import (
    Judgement,
    Role,
    join_passage,
    join_query,
    judgement_record,
    passage_record,
    query_record,
    title_record,
)
from data_tools.readers.labelled import (
    LabelledOptions,
    Unusable,
    an_object,
    checked_list,
    json_lines,
    made_passage,
    required_id,
    required_text,
)
from data_tools.readers.tables import judgements, rows
from largede.errors import DataError

# All files belong together, whatever folder they lie in.
_COLLECTION = "msmarco"
# A query has at most some thousand triples; a file in another order must not fill the memory.
_LINES_AT_ONCE = 100_000


@dataclass(frozen=True)
class MsMarcoOptions(LabelledOptions):
    max_negatives: int | None = option(30, "negatives of a pair, at most, drawn at random")
    min_grade: int = option(1, "lowest grade of a positive")
    systems: str = option("", "systems whose hard negatives are used, between commas (all)")
    first_rank: int = option(1, "best rank in a system's list that is drawn from")
    last_rank: int = option(1000, "worst rank in a system's list that is drawn from")
    ce_score_margin: float | None = option(
        None, "pass over negatives scored above the worst positive less this, where lists have scores"
    )
    seed: int = option(0, "seed of the draw")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.first_rank <= self.last_rank:
            raise DataError(
                f"--first-rank {self.first_rank}, --last-rank {self.last_rank}",
                expected="1 or more, the first not behind the last",
                mend="correct these flags",
            )

    @property
    def wanted_systems(self) -> list[str]:
        return [name.strip() for name in self.systems.split(",") if name.strip()]


def files_of(paths: Sequence[Path], options: MsMarcoOptions) -> list[Path]:
    """The files themselves. Raises DataError for one whose name says nothing, and where a part is missing."""
    readers = {_reader_of(path) for path in paths}
    for reader, part in ((_passages, "passages"), (_queries, "queries"), (_judgements, "qrels")):
        if reader not in readers:
            raise DataError(
                f"no {part} among {', '.join(map(str, paths))}",
                expected="passages, queries and qrels, such as collection.tsv queries.train.tsv qrels.train.tsv",
                mend=f"name the file of {part} as well",
            )
    return plain_files(paths, options)


def read(path: Path, options: MsMarcoOptions, dropped: Dropped) -> Iterator[Record]:
    yield from _reader_of(path)(path, options, dropped)


def _reader_of(path: Path) -> Callable[[Path, MsMarcoOptions, Dropped], Iterator[Record]]:
    name = path.name.lower()
    if "hard-negatives" in name:
        return _ranked_negatives
    for start, reader in _READERS.items():
        if name.startswith(start):
            return reader
    if ".query" in name:
        return _queries
    raise DataError(
        f"{path}: its name does not tell which part of MS MARCO it holds",
        expected=f"a name with hard-negatives or .query in it, or beginning with {', '.join(_READERS)}",
        mend="give the file the name that it was published under",
    )


def _passages(path: Path, options: MsMarcoOptions, dropped: Dropped) -> Iterator[Record]:
    for where, (id_, *title, text) in rows(path, (2, 3), dropped):
        try:
            passage = made_passage(required_id(id_, "passage"), "".join(title).strip(), text, "passage")
        except Unusable as reason:
            dropped.note(str(reason), where)
        else:
            yield passage_record(_COLLECTION, passage)


def _titles(path: Path, options: MsMarcoOptions, dropped: Dropped) -> Iterator[Record]:
    for _, (id_, title) in rows(path, (2,), dropped):
        # Many passages have none; that is no fault.
        if title.strip() not in ("", "-"):
            yield title_record(_COLLECTION, id_.strip(), title.strip())


def _queries(path: Path, options: MsMarcoOptions, dropped: Dropped) -> Iterator[Record]:
    for where, (id_, text) in rows(path, (2,), dropped):
        try:
            yield query_record(_COLLECTION, required_id(id_, "query"), required_text(text, "query"))
        except Unusable as reason:
            dropped.note(str(reason), where)


def _judgements(path: Path, options: MsMarcoOptions, dropped: Dropped) -> Iterator[Record]:
    for number, (where, query_id, passage_id, grade) in enumerate(judgements(path, dropped)):
        if grade >= options.min_grade:
            yield judgement_record(_COLLECTION, Judgement(query_id, passage_id, Role.POSITIVE, (-grade, number)))
        else:
            dropped.note("judgement below --min-grade", where)


def _triples(path: Path, options: MsMarcoOptions, dropped: Dropped) -> Iterator[Record]:
    triples = (fields for _, fields in rows(path, (3,), dropped))
    for query_id, group in groupby(triples, key=lambda fields: fields[0].strip()):
        while lines := list(islice(group, _LINES_AT_ONCE)):
            known = {positive.strip() for _, positive, _ in lines}
            wrong = {negative.strip() for *_, negative in lines}
            yield from _drawn(query_id, wrong - known, options)


def _ranked_negatives(path: Path, options: MsMarcoOptions, dropped: Dropped) -> Iterator[Record]:
    for where, value in json_lines(path, dropped):
        try:
            record = an_object(value)
            query_id = required_id(record.get("qid"), "query")
            positives = [_scored(item) for item in checked_list(record.get("pos"), "positives")]
            lists = an_object(record.get("neg"))
            candidates = [
                _scored(item)
                for system in options.wanted_systems or lists
                for item in _ranked(lists, system, options, where, dropped)
            ]
        except Unusable as reason:
            dropped.note(str(reason), where)
            continue
        limit = _highest_score(positives, options)
        near = [id_ for id_, score in candidates if limit is not None and score is not None and score > limit]
        for id_ in near:
            dropped.note("negative within --ce-score-margin of a positive", f"{where} passage {id_}")
        wrong = {id_ for id_, _ in candidates} - {id_ for id_, _ in positives} - set(near)
        yield from _drawn(query_id, wrong, options)


def _ranked(lists: Any, system: str, options: MsMarcoOptions, where: str, dropped: Dropped) -> Sequence[Any]:
    if system not in lists:
        dropped.note(f"query without negatives of {system}", where)
        return ()
    return checked_list(lists[system], "negatives")[options.first_rank - 1 : options.last_rank]


def _scored(item: Any) -> tuple[str, float | None]:
    """(passage id, score of a cross encoder)."""
    if not isinstance(item, dict):
        return required_id(item, "passage"), None
    score = item.get("ce-score")
    return required_id(item.get("pid"), "passage"), score if isinstance(score, int | float) else None


def _highest_score(positives: Sequence[tuple[str, float | None]], options: MsMarcoOptions) -> float | None:
    scores = [score for _, score in positives if score is not None]
    if options.ce_score_margin is None or not scores:
        return None
    return min(scores) - options.ce_score_margin


def _drawn(query_id: str, wrong: set[str], options: MsMarcoOptions) -> Iterator[Record]:
    count = len(wrong) if options.max_negatives is None else options.max_negatives
    for place, passage_id in enumerate(draw(query_id, wrong, count, options.seed)):
        yield judgement_record(_COLLECTION, Judgement(query_id, passage_id, Role.NEGATIVE, (place,)))


_READERS = {
    "para.title": _titles,
    "para": _passages,
    "collection": _passages,
    "corpus": _passages,
    "queries": _queries,
    "qrels": _judgements,
    "qidpidtriples": _triples,
}


FORMAT = Format(
    "msmarco",
    "MS MARCO passages: collection, queries, qrels and hard negatives.",
    "largede-data pairs msmarco collection.tsv queries.train.tsv qrels.train.tsv --out marco",
    MsMarcoOptions,
    read,
    groupings=(join_passage, join_query),
    files=files_of,
    inputs="a file under the name it was published under",
)
