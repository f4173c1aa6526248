"""How to search, as one frozen value, and how a command line says it. Imports nothing heavy."""

import argparse
import re
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

from largede.errors import RecipeError

ExactKind = Literal["flat", "flat-fp16", "flat-bf16"]
ApproximateKind = Literal["hnsw", "hnsw-sq8", "ivf-pq"]
IndexKind = ExactKind | ApproximateKind
EXACT_KINDS: tuple[str, ...] = get_args(ExactKind)
APPROXIMATE_KINDS: tuple[str, ...] = get_args(ApproximateKind)
INDEX_KINDS = EXACT_KINDS + APPROXIMATE_KINDS


_FLAGS = {
    "links": "--hnsw-links",
    "construction": "--hnsw-construction",
    "search": "--hnsw-search",
    "lists": "--ivf-lists",
    "codes": "--pq-codes",
    "probes": "--ivf-probes",
    "candidates": "--candidates",
    "build_threads": "--index-threads",
}


@dataclass(frozen=True)
class HnswSettings:
    """The graph: links of a document (twice as many on the lowest level), breadth of building and of searching."""

    links: int = 32
    construction: int = 200
    search: int = 128


PAPER_HNSW = HnswSettings(links=512, construction=200, search=128)
"""The graph of the reader-distillation paper's index table (Yang and Seo 2020)."""


@dataclass(frozen=True)
class IvfPqSettings:
    """Inverted lists with product-quantised vectors. None: chosen from the corpus, see `search/approximate.py`."""

    lists: int | None = None
    codes: int | None = None
    probes: int | None = None


@dataclass(frozen=True)
class SearchSettings:
    """What is searched, where, and how.

    `flat-fp16` and `flat-bf16` round the vectors to 16 bits and then search exactly. `device` is auto (every GPU that
    FAISS sees, else the CPU), cpu, cuda (one GPU, or `gpus` of them) or cuda:N. The approximate kinds are built and
    searched on the CPU, collect `candidates` documents a query (None: see `search/approximate.py`) and, with `rescore`,
    score them again from the stored vectors. `build_threads` above 1 builds an HNSW graph sooner, never the same twice.
    """

    kind: IndexKind = "flat"
    device: str = "auto"
    gpus: int | None = None
    hnsw: HnswSettings = field(default_factory=HnswSettings)
    ivf_pq: IvfPqSettings = field(default_factory=IvfPqSettings)
    candidates: int | None = None
    rescore: bool = True
    build_threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises RecipeError for an unknown kind or device, and for numbers that cannot be."""
        if self.kind not in INDEX_KINDS:
            raise _refused(f"an index kind {self.kind!r}", f"one of {', '.join(INDEX_KINDS)}", "--index")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise _refused(f"a search device {self.device!r}", "auto, cpu, cuda or cuda:N", "--search-device")
        if self.gpus is not None and (self.device not in ("auto", "cuda") or self.gpus < 1):
            raise _refused(
                f"{self.gpus} GPUs on the device {self.device!r}",
                "one GPU or more, with --search-device cuda",
                "--search-gpus",
            )
        if not self.is_exact and (self.device.startswith("cuda") or self.gpus):
            raise _refused(f"an index of kind {self.kind} on a GPU", "the CPU for approximate kinds", "--search-device")
        numbers = asdict(self.hnsw) | asdict(self.ivf_pq)
        numbers |= {"candidates": self.candidates, "build_threads": self.build_threads}
        for name, number in numbers.items():
            if number is not None and number < 1:
                raise _refused(f"{name} of {number}", "1 or more", _FLAGS[name])
        if self.hnsw.links < 2:
            raise _refused(f"{self.hnsw.links} link for each document", "2 or more", "--hnsw-links")

    @property
    def is_exact(self) -> bool:
        return self.kind in EXACT_KINDS

    def of_list(self) -> dict[str, object]:
        """What a ranked list depends on, as a JSON value: the kind, and of the rest what that kind reads."""
        if self.is_exact:
            return {"kind": self.kind}
        return self.of_index() | {"candidates": self.candidates, "rescore": self.rescore} | self._searching()

    def of_index(self) -> dict[str, object]:
        """What a built index depends on, beside its vectors."""
        facts: dict[str, object] = {"kind": self.kind}
        if self.kind == "ivf-pq":
            return facts | {"lists": self.ivf_pq.lists, "codes": self.ivf_pq.codes, "seed": self.seed}
        if not self.is_exact:
            facts |= {"links": self.hnsw.links, "construction": self.hnsw.construction}
            facts |= {"build_threads": self.build_threads, "seed": self.seed}
        return facts

    def _searching(self) -> dict[str, object]:
        return {"probes": self.ivf_pq.probes} if self.kind == "ivf-pq" else {"search": self.hnsw.search}


def add_search_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("search")
    group.add_argument(
        "--index", choices=INDEX_KINDS, default="flat", help="flat: exact (%(default)s); the last three approximate"
    )
    group.add_argument(
        "--search-device", default="auto", help="cpu, cuda, cuda:N; auto: all GPUs that FAISS sees, else the CPU"
    )
    group.add_argument("--search-gpus", type=int, metavar="N", help="GPUs of this machine to share a search")
    group.add_argument("--hnsw-links", type=int, help="links of a document (32; the paper's table has 512)")
    group.add_argument("--hnsw-construction", type=int, help="breadth of building (200)")
    group.add_argument("--hnsw-search", type=int, help="breadth of searching (128)")
    group.add_argument("--ivf-lists", type=int, help="inverted lists (4 times the square root of the documents)")
    group.add_argument("--pq-codes", type=int, help="bytes of a document, a divisor of the width (a quarter of it)")
    group.add_argument("--ivf-probes", type=int, help="lists looked into (a sixteenth of them, 8 at least)")
    group.add_argument("--candidates", type=int, help="documents an approximate index collects for each query")
    group.add_argument("--no-rescore", action="store_true", help="keep an approximate index's own scores")
    group.add_argument(
        "--index-threads",
        type=int,
        default=1,
        help="more build an HNSW graph sooner, never the same twice (%(default)s)",
    )


def search_settings_from_flags(args: argparse.Namespace) -> SearchSettings:
    """Raises RecipeError as SearchSettings does."""
    hnsw = {"links": args.hnsw_links, "construction": args.hnsw_construction, "search": args.hnsw_search}
    return SearchSettings(
        kind=args.index,
        device=args.search_device,
        gpus=args.search_gpus,
        hnsw=HnswSettings(**{name: number for name, number in hnsw.items() if number is not None}),
        ivf_pq=IvfPqSettings(args.ivf_lists, args.pq_codes, args.ivf_probes),
        candidates=args.candidates,
        rescore=not args.no_rescore,
        build_threads=args.index_threads,
    )


def _refused(given: str, expected: str, flag: str) -> RecipeError:
    return RecipeError(given, expected=expected, mend=f"change {flag}")
