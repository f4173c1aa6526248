"""One thing that is reported: a benchmark, what may be tuned on, and how its lists are measured."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from largede.errors import DataError
from largede.evaluation.measures.answers import answer_cuts, answer_recall, judged_by_answers
from largede.evaluation.measures.metrics import MEASURES, PerQuery, check_qrels, per_query
from largede.retrieval.corpus import Benchmark, Qrels
from largede.retrieval.runs import Run


@dataclass(frozen=True)
class Task:
    """What is reported and by which measures, and what weights may be chosen on.

    Where there are `answers` (query to the texts that are right), passages that hold one are counted, not judgements.
    """

    test: Benchmark
    dev: Benchmark | None
    measures: tuple[str, ...] = MEASURES
    relevant_from: int = 1
    group: str | None = None
    answers: Mapping[str, Sequence[str]] | None = None

    @property
    def tuned_by(self) -> str:
        """The measure that weights are chosen by: the first, or nDCG@10 where that one looks for answers."""
        return self.measures[0] if self.answers is None else "nDCG@10"

    def check_untouched(self) -> None:
        """Raise DataError when weights would be chosen on queries that are reported: figures would look too good."""
        if self.dev is None or self.dev.corpus.fingerprint != self.test.corpus.fingerprint:
            return
        shared = sorted(self.dev.queries.keys() & self.test.queries.keys())
        if shared:
            raise DataError(
                f"weights chosen on split {self.dev.split!r} of {self.dev.name} and figures reported on "
                f"{self.test.split!r} of {self.test.name}: {len(shared):,} queries are in both ({shared[0]})",
                expected="development queries that are not reported",
                mend="report another --split, name another --dev, or choose none (--no-bm25; bm25 without --tune)",
            )

    def check_judgements(self) -> None:
        """Raise DataError when nothing can be measured by the judgements, or nothing chosen by those to tune on."""
        if self.answers is None:
            check_qrels(self.test.qrels, self.relevant_from, f"{self.test.name}, split {self.test.split}")
        if self.dev is not None:
            check_qrels(self.dev.qrels, 1, f"{self.dev.name}, split {self.dev.split}")

    def values(self, run: Run) -> PerQuery:
        """Every measure of every query."""
        if self.answers is None:
            return per_query(run, self.test.qrels, self.measures, self.relevant_from)
        return answer_recall(run, self.test.corpus, self.answers, answer_cuts(self.measures))

    def judgements(self, heads: Iterable[Run]) -> Qrels:
        """What counts as relevant: judged documents of the grades that do, or those of `heads` that hold an answer."""
        if self.answers is not None:
            return judged_by_answers(heads, self.test.corpus, self.answers)
        return {
            query: {document: grade for document, grade in grades.items() if grade >= self.relevant_from}
            for query, grades in self.test.qrels.items()
        }
