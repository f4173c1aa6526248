import pytest

from data_tools.wording import counted


@pytest.mark.parametrize(("number", "said"), [(0, "0 shards"), (1, "1 shard"), (2, "2 shards"), (1200, "1,200 shards")])
def test_a_noun_follows_its_number(number: int, said: str) -> None:
    assert counted(number, "shard") == said


def test_a_plural_may_be_given() -> None:
    assert [counted(number, "query", "queries") for number in (1, 2)] == ["1 query", "2 queries"]
