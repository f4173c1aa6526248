"""Answering questions on the ranks of one process group: engines and twins are shared by all that they fit."""

import itertools
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch.distributed as dist

from exactness.broken import BROKEN, NOTICED
from exactness.case_batch import CaseBatch
from exactness.engines import EngineKind, MatrixEngine, matrix_engine, switch
from exactness.extras import EXTRAS
from exactness.factors import LEVELS, Case
from exactness.measure import Answer, WatchedStep, answer_case
from exactness.twin import Truth, plain_truth
from largede.training.collectives import objects_of_ranks
from largede.training.engine import quieten_libraries

LOSS_TOLERANCE = 1e-6
EARLIER_SEED = 1


Kind = Literal["product", "extra", "broken", "broken in bf16"]
BF16_ROW = "bf16 parameters"


@dataclass(frozen=True)
class Question:
    """A case as it is, under an extra setting, or with a mistake made, in float32 or with bf16 parameters."""

    kind: Kind
    name: str
    case: Case

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.name}/{self.case.key}"

    @property
    def engine(self) -> EngineKind:
        case = self.case
        return EXTRAS[self.engine_name].kind(case) if self.engine_name else EngineKind(case.zero, case.layout)

    @property
    def engine_name(self) -> str:
        """Questions of one such name share engines and twins."""
        return {"extra": self.name, "broken in bf16": BF16_ROW}.get(self.kind, "")

    @property
    def is_broken(self) -> bool:
        return self.kind.startswith("broken")

    @property
    def truth_key(self) -> str:
        return f"{self.engine.precision} {self.engine.settings} {self.case.twin_key}"


@dataclass(frozen=True)
class Result:
    """A question, its answer, and the commit that gave it."""

    question: Question
    answer: Answer
    commit: str = ""

    def to_tree(self) -> dict[str, Any]:
        return {**asdict(self.question), "answer": asdict(self.answer), "commit": self.commit}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> "Result":
        question = Question(tree["kind"], tree["name"], Case(**tree["case"]))
        return cls(question, Answer(**tree["answer"]), tree["commit"])

    @property
    def is_as_it_should(self) -> bool:
        """Right steps are within their tolerance and, with dropout, replayed to the last bit; mistakes are noticed."""
        answer = self.answer
        if self.question.is_broken:
            return answer.share > 1.0 and answer.error > NOTICED
        must_replay = self.question.case.dropout and self.question.name != "graphs kept"
        return answer.share <= 1.0 and answer.loss_error <= LOSS_TOLERANCE and (answer.is_bitwise or not must_replay)


def product_questions(cases: list[Case]) -> list[Question]:
    return [Question("product", "", case) for case in cases]


def broken_questions(cases: list[Case], most_each: int | None = None) -> list[Question]:
    """Every mistake in the cases where it can show."""
    shown = {name: [case for case in cases if broken.can_show(case)] for name, broken in BROKEN.items()}
    return [Question("broken", name, case) for name in BROKEN for case in shown[name][:most_each]]


def broken_bf16_questions(ranks: int, most_each: int | None = None) -> list[Question]:
    """The same mistakes where the tolerance is wide: it must not be so wide that they pass."""
    questions = broken_questions(EXTRAS[BF16_ROW].cases(ranks), most_each)
    return [replace(question, kind="broken in bf16") for question in questions if BROKEN[question.name].shows_in_bf16]


def extra_questions(ranks: int) -> list[Question]:
    return [Question("extra", name, case) for name, extra in EXTRAS.items() for case in extra.cases(ranks)]


def answer_questions(folder: str, questions: list[Question], file: str | None = None, commit: str = "") -> list[Result]:
    """On every rank alike. Collective. Rank 0 adds each result to `file`, one JSON line each, as it is found."""
    quieten()
    results = []
    questions = sorted(questions, key=order)
    for _, of_layout in itertools.groupby(questions, key=lambda q: (q.engine_name, q.case.layout)):
        same_layout = list(of_layout)
        truths = share_truths(same_layout, Path(folder))
        for zero, of_engine in itertools.groupby(same_layout, key=lambda q: q.case.zero):
            for result in answer_on_one_engine(list(of_engine), Path(folder) / f"zero{zero}", truths):
                results.append(result)
                if file and dist.get_rank() == 0:
                    with Path(file).open("a", encoding="utf-8") as lines:
                        lines.write(json.dumps(replace(result, commit=commit).to_tree()) + "\n")
    return results


def order(question: Question) -> tuple[Any, ...]:
    """Neighbours share the most; mistakes come last on their engine, so that none disturbs a right step."""
    layout, zero, *rest = places(question.case)[1:]
    return (question.engine_name, layout, zero, question.is_broken, question.name, rest)


def places(case: Case) -> tuple[int, ...]:
    """Where each level stands among its factor's, in the order of the factors."""
    return tuple(LEVELS[name].index(level) for name, level in asdict(case).items())


def share_truths(questions: list[Question], folder: Path) -> dict[str, Truth]:
    """Every twin once, the work split over the ranks; each is computed by one of them alone. Collective."""
    needed = list({q.truth_key: q for q in questions}.items())
    own = {
        key: plain_truth(q.case, folder / f"twin{dist.get_rank()}", q.engine)
        for key, q in needed[dist.get_rank() :: dist.get_world_size()]
    }
    return {key: truth for part in objects_of_ranks(own) for key, truth in part.items()}


def answer_on_one_engine(questions: list[Question], folder: Path, truths: dict[str, Truth]) -> Iterator[Result]:
    with matrix_engine(questions[0].case, folder, questions[0].engine) as made:
        take_earlier_step(made, questions[0].case)
        for question in questions:
            broken = BROKEN.get(question.name) if question.is_broken else None
            truth, batch = truths[question.truth_key], CaseBatch(question.case)
            if broken is None:
                yield Result(question, answer_case(question.case, made, truth, batch))
                continue
            take_earlier_step(made, question.case)  # of the same size: a trace of a small gradient would hardly show
            with broken.in_place():
                answer = answer_case(question.case, made, truth, batch, broken.step)
            yield Result(question, answer)


def take_earlier_step(made: MatrixEngine, case: Case) -> None:
    """A step on another batch, so that nothing is measured on a fresh engine: what a step leaves behind shall show."""
    switch(made.engine.module, case)
    step = WatchedStep(made.engine, made.recipe(case))
    step(CaseBatch(case, EARLIER_SEED).of_rank(dist.get_rank(), dist.get_world_size()))
    made.engine.step()


def quieten() -> None:
    """Thousands of steps in one log: leave out what libraries say of their own coming changes."""
    quieten_libraries()
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
