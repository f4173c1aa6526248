import pytest
from member_formats import Form, forms, measure

from largede.streams.pair import Pair

PAIRS = [
    Pair("one", "answer é", "title", ("no", "neither"), ("", "t"), "1", "2", ("a", ""), "g", ("3",), "forum", 2.0),
    Pair("two\nlines", "漢字 \u2028 answer"),
    Pair("three", "answer", negatives=("no",), score=-1.5),
]


@pytest.mark.parametrize("form", forms(), ids=lambda form: form.name)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_form_gives_the_pairs_back(form: Form, count: int) -> None:
    assert form.read(form.write(PAIRS[:count]), count) == PAIRS[:count]


def test_what_is_measured_is_positive_and_of_all_pairs() -> None:
    sizes = {row.name: row for row in measure(list(forms()), PAIRS * 50, 16, repeats=2)}
    assert len(sizes) == 23
    assert all(row.share > 0 and row.written_per_s > 0 and row.read_per_s > 0 for row in sizes.values())
    assert sizes["largede's block"].share <= 1.05 * sizes["MessagePack columns, zstd 3"].share
