"""What a hard negative has to be, as one frozen value that is checked when it is made."""

from dataclasses import dataclass
from typing import Literal

from largede.errors import DataError

List = Literal["dense", "bm25"]
Pick = Literal["sample", "top"]

MOST_RANKS = 10_000
"""A list is held for every query of a window, so its length is bounded."""


@dataclass(frozen=True)
class MineSettings:
    """Which candidates become negatives.

    `lists` are those candidates are taken from, `shares` the part of the negatives that each gives where it can.
    `ranks` (first, last) is the window of every list, counted from 1 with the positives in it. `pick` sample draws
    from the window by `seed`, a function of the seed and the pair alone; top takes its first ones.

    A negative's dense score is at most the positive's minus `margin`, and at most `max_share` times the positive's
    (de Souza Pereira Moreira et al. 2024, NV-Retriever, TopK-MarginPos and TopK-PercPos). `agreement` leaves out what
    both lists put above the positive. `same_group` allows passages of the pair's own group.

    `window` is the number of pairs whose lists are made at a time.
    """

    lists: tuple[List, ...] = ("dense",)
    negatives: int = 7
    ranks: tuple[int, int] = (1, 200)
    pick: Pick = "sample"
    shares: tuple[float, ...] = ()
    margin: float | None = None
    max_share: float | None = None
    agreement: bool = False
    same_group: bool = False
    seed: int = 0
    max_query_tokens: int = 64
    max_passage_tokens: int = 512
    window: int = 50_000
    shard_size: int | None = None
    bm25_threads: int = 2

    def __post_init__(self) -> None:
        self._check_lists()
        self._check_numbers()
        self._check_scores()

    @property
    def depth(self) -> int:
        return self.ranks[1]

    @property
    def weights(self) -> dict[List, float]:
        """The share of each list; equal ones where none were given."""
        return dict(zip(self.lists, self.shares or (1.0,) * len(self.lists), strict=True))

    @property
    def compares_scores(self) -> bool:
        """Whether a candidate's dense score is set beside the positive's."""
        return self.margin is not None or self.max_share is not None or self.agreement

    @property
    def ways_to_keep_more(self) -> list[str]:
        """What to change so that the filters in use leave out fewer candidates."""
        margin = ["lower --margin"] if self.margin is not None else []
        share = ["raise --max-share"] if self.max_share is not None else []
        return [*margin, *share, *(["leave --agreement out"] if self.agreement else [])]

    def _check_lists(self) -> None:
        if not self.lists or len(set(self.lists)) < len(self.lists):
            raise DataError(
                f"--from {' '.join(self.lists)}", expected="dense, bm25 or both, each once", mend="name each list once"
            )
        if self.shares and (len(self.shares) != len(self.lists) or min(self.shares) <= 0):
            raise DataError(
                f"--shares {' '.join(map(str, self.shares))} for {len(self.lists)} lists",
                expected="a number above zero for each list of --from, in that order",
                mend="give as many shares as lists, or none for equal ones",
            )

    def _check_numbers(self) -> None:
        first, last = self.ranks
        if not 1 <= first <= last <= MOST_RANKS:
            raise DataError(
                f"--ranks {first}-{last}",
                expected=f"first and last rank, from 1 to {MOST_RANKS:,}",
                mend="write it as in --ranks 30-200",
            )
        for flag, value in (("--negatives", self.negatives), ("--window", self.window)):
            if value < 1:
                raise DataError(f"{flag} {value}", expected="1 or more", mend=f"raise {flag}")
        if not 0 <= self.seed < 2**63:
            raise DataError(f"--seed {self.seed}", expected="zero or more, in 63 bits", mend="choose another")

    def _check_scores(self) -> None:
        flags = {"--margin": self.margin is not None, "--max-share": self.max_share is not None}
        given = [flag for flag, is_given in flags.items() if is_given]
        if given and "dense" not in self.lists:
            raise DataError(
                f"{' and '.join(given)} with --from bm25 alone",
                expected="dense scores: BM25's are sums without a scale, and differ from query to query",
                mend="add dense to --from (with --model), or leave the flag out and start --ranks lower down",
            )
        if self.agreement and len(self.lists) < 2:
            raise DataError(
                f"--agreement with --from {' '.join(self.lists)}",
                expected="two lists that can agree",
                mend="give --from dense bm25",
            )
        if self.margin is not None and self.margin < 0:
            raise DataError(f"--margin {self.margin}", expected="zero or more", mend="0.05 is usual for cosines")
        if self.max_share is not None and not 0 < self.max_share <= 1:
            raise DataError(
                f"--max-share {self.max_share}", expected="above 0, at most 1", mend="0.95 is what NV-Retriever uses"
            )
