"""A pairwise part of the exactness matrix on one to four ranks, and what the matrix itself stands on.

The full product is one command: see tests/training/exactness/RESULTS.md.
"""

from pathlib import Path

import pytest
from exactness.case_batch import CaseBatch
from exactness.engines import EngineKind, recipe_of, switch
from exactness.extras import EXTRAS
from exactness.factors import LEVELS, Case, covering_array, full_product, pairs_of, pairs_that_exist
from exactness.matrix import (
    Question,
    answer_questions,
    broken_bf16_questions,
    broken_questions,
    extra_questions,
    product_questions,
)
from exactness.measure import FLOAT32_TOLERANCE
from exactness.twin import truth_of
from ranks import run_on_ranks

from largede.models.build import build_dual_encoder

ARRAY = covering_array()


def test_the_array_covers_every_pair_of_levels_that_exists() -> None:
    assert set().union(*map(pairs_of, ARRAY)) == pairs_that_exist()
    assert len(ARRAY) < 30
    assert len(full_product()) == 11_760


def some_extras(ranks: int) -> list[Question]:
    """One case of every row beyond the product: on two ranks, or on the number it needs."""
    chosen = {}
    for question in extra_questions(ranks):
        wanted = 2 if 2 in EXTRAS[question.name].ranks else EXTRAS[question.name].ranks[0]
        if ranks == wanted:
            chosen[question.name] = question  # the last: highest stage, two towers where there are, dropout
    return list(chosen.values())


@pytest.mark.parametrize("ranks", LEVELS["ranks"])
def test_steps_equal_their_twins_and_mistakes_are_noticed(ranks: int, tmp_path: Path) -> None:
    cases = [case for case in ARRAY if case.ranks == ranks]
    questions = product_questions(cases) + broken_questions(cases, most_each=1) + some_extras(ranks)
    if ranks == 2:
        questions += broken_bf16_questions(ranks, most_each=1)
    results = run_on_ranks(ranks, answer_questions, tmp_path, str(tmp_path), questions)[0]
    assert {r.question for r in results} == set(questions)
    for result in results:
        print(f"{result.question.key}: {result.answer}")
    assert not [f"{r.question.key}: {r.answer}" for r in results if not r.is_as_it_should]


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("budget", LEVELS["budget"])
def test_without_dropout_the_chunks_of_the_twin_make_no_difference(ranks: int, budget: str, tmp_path: Path) -> None:
    """Against one chunk that holds everything: the twin shares its chunks with the step, but not a mistake in them.

    The encoder is float64, so that no ReLU changes its mind; pooling and scores are float32 all the same.
    """
    case = Case(ranks, "ade", 3, "cosine", budget, "even" if ranks == 1 else "ragged", 7, False, False, "per_chunk")
    truths = []
    for of_ranks, budget_tokens in ((ranks, None), (1, 10**6)):
        settings = {"batch__chunk_tokens": budget_tokens} if budget_tokens else {}
        recipe = recipe_of(case, tmp_path, EngineKind(3, "ade", settings=settings))
        model = build_dual_encoder(recipe.model).double()
        switch(model, case)
        truths.append(truth_of(model, recipe, CaseBatch(case), of_ranks))
    in_chunks, whole = truths
    for name, gradient in whole.gradients.items():
        error = (in_chunks.gradients[name] - gradient).norm() / gradient.norm()
        assert error < FLOAT32_TOLERANCE, (name, error)
