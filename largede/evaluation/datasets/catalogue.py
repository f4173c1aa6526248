"""The collections that largede knows by name: where they lie, what is in them, and how the paper evaluates on them.

Sources of what stands here, so that it can be looked up again:

    BEIR, MS MARCO   addresses and MD5: table "Available Datasets" of beir-cellar/beir's README.md, the same in
                     ir_datasets' etc/downloads.json, which has the sizes in bytes. (BEIR's examples/dataset/md5.csv is
                     older: its webis-touche2020 and fever are earlier archives.) Documents, queries and splits: the
                     same table and the paper's table 1, equal to mteb's descriptive statistics.
    TREC DL 2020     addresses, MD5 and sizes: ir_datasets.
    DPR              addresses: dpr/data/download_data.py of facebookresearch/DPR. MD5 and size of the passages:
                     ir_datasets. Nobody publishes checksums of the question files.
    MRQA             addresses, MD5 and questions: README.md of mrqa/MRQA-Shared-Task-2019.
    lengths          Ni et al. 2021: queries 64 tokens, passages 512; passages 768 for Trec-News and Robust04; queries
                     512 for ArguAna.

Only dev splits may be tuned on: a train split may be what a model was trained on.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal

from largede.errors import DataError
from largede.evaluation.datasets.collection import (
    ANSWER_MEASURES,
    PASSAGE_MEASURES,
    SENTENCE_MEASURES,
    TREC_MEASURES,
    Conventions,
)


@dataclass(frozen=True)
class RemoteFile:
    """A file that somebody publishes. `size` in bytes; `md5` as published, None where nobody publishes one.

    `saved_as` is its name here, where the address does not end with one.
    """

    address: str
    size: int | None = None
    md5: str | None = None
    saved_as: str = ""

    @property
    def name(self) -> str:
        return self.saved_as or self.address.rpartition("/")[2]


@dataclass(frozen=True)
class Licensed:
    """Why a set cannot be downloaded: where to ask for it, and how BEIR made its corpus, queries and qrels from it."""

    ask: tuple[str, ...]
    convert: str


Kind = Literal["archive", "trec-dl", "passages", "questions", "sentences", "licensed"]


@dataclass(frozen=True)
class Entry(Conventions):
    """One name of the catalogue.

    kind        archive    a zip that holds the folder in BEIR format, or one folder for each of `parts`
                trec-dl    queries and qrels files over the corpus of `corpus_of`
                passages   DPR's TSV of passages, a corpus alone
                questions  DPR's questions with answers, over the corpus of `corpus_of`
                sentences  an MRQA file: every sentence of its contexts is a candidate (MultiReQA)
                licensed   not public
    `folder` is the name below the cache folder, that of another entry where both share one. `documents` and `queries`
    are of the reported split. `own_documents`: the queries are documents of the corpus under the same ids, so each
    finds itself first unless it is left out, as search does and BEIR does.
    """

    name: str
    kind: Kind
    documents: int | None
    queries: int | None
    files: tuple[RemoteFile, ...] = ()
    own_documents: bool = False
    folder: str = ""
    corpus_of: str | None = None
    parts: tuple[str, ...] = ()
    licensed: Licensed | None = None

    @property
    def folder_name(self) -> str:
        return self.folder or self.name

    @property
    def conventions(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(Conventions)}

    @property
    def download_bytes(self) -> int | None:
        """Of this entry's own files; None when one of them has no published size."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)


_BEIR = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets"
_DPR = "https://dl.fbaipublicfiles.com/dpr"
_MRQA = "https://s3.us-east-2.amazonaws.com/mrqa/release/v2/dev"
HOW_BEIR_CONVERTED = "https://github.com/beir-cellar/beir/tree/main/examples/dataset"


def _zip(name: str, size: int, md5: str) -> tuple[RemoteFile, ...]:
    return (RemoteFile(f"{_BEIR}/{name}.zip", size, md5),)


_MSMARCO = _zip("msmarco", 1082258632, "444067daf65d982533ea17ebd59501e4")

_BEIR_ENTRIES = (
    Entry(
        "trec-covid",
        "archive",
        171_332,
        50,
        _zip("trec-covid", 73876720, "ce62140cb23feb9becf6270d0d1fe6d1"),
    ),
    Entry(
        "bioasq",
        "licensed",
        14_914_602,
        500,
        licensed=Licensed(
            ("http://www.bioasq.org: register; documents of task 9a (v.2020), questions of task 8b",),
            "title and abstract of each document; documents with an answer to the question are relevant",
        ),
    ),
    Entry(
        "nfcorpus",
        "archive",
        3_633,
        323,
        _zip("nfcorpus", 2448432, "a89dba18a62ef92f7d323ec890a0d38d"),
        dev_split="dev",
    ),
    Entry("nq", "archive", 2_681_468, 3_452, _zip("nq", 498307926, "d4d3d2e48787a744b6f6e691ff534307")),
    Entry(
        "hotpotqa",
        "archive",
        5_233_329,
        7_405,
        _zip("hotpotqa", 654025350, "f412724f78b0d91183a0e86805e16114"),
        dev_split="dev",
    ),
    Entry("fiqa", "archive", 57_638, 648, _zip("fiqa", 17948027, "17918ed23cd04fb15047f73e6c3bd9d9"), dev_split="dev"),
    Entry(
        "signal1m",
        "licensed",
        2_866_316,
        97,
        licensed=Licensed(
            (
                "https://research.signal-ai.com/datasets/signal1m-tweetir.html: sign up for queries and qrels",
                "https://github.com/igorbrigadir/newsir16-data: ids of the tweets, to be fetched from Twitter",
            ),
            "emojis and links removed from the tweets, empty ones left out; a query is the title of an article",
        ),
    ),
    Entry(
        "trec-news",
        "licensed",
        594_977,
        57,
        max_passage_tokens=768,
        licensed=Licensed(
            (
                "https://trec.nist.gov/data/wapost: application for the Washington Post corpus",
                "https://trec.nist.gov/data/news2019.html: background linking topics and qrels of 2019",
            ),
            "the paragraphs of an article as plain text; a query is the title of its article",
        ),
    ),
    Entry(
        "robust04",
        "licensed",
        528_155,
        249,
        max_passage_tokens=768,
        licensed=Licensed(
            ("https://trec.nist.gov/data/cd45/index.html: application for TREC disks 4 and 5",),
            "documents, queries and qrels as in ir_datasets' trec-robust04; a query is the topic's description",
        ),
    ),
    Entry(
        "arguana",
        "archive",
        8_674,
        1_406,
        _zip("arguana", 3773617, "8ad3e3c2a5867cdced806d6503f29b99"),
        max_query_tokens=512,
        own_documents=True,
    ),
    Entry(
        "webis-touche2020",
        "archive",
        382_545,
        49,
        _zip("webis-touche2020", 227132363, "46f650ba5a527fc69e0a6521c5a23563"),
    ),
    Entry(
        "cqadupstack",
        "archive",
        457_199,
        13_145,
        _zip("cqadupstack", 5343728040, "4e41456d7df8ee7760a7f866133bda78"),
        parts=(
            "android",
            "english",
            "gaming",
            "gis",
            "mathematica",
            "physics",
            "programmers",
            "stats",
            "tex",
            "unix",
            "webmasters",
            "wordpress",
        ),
        group="cqadupstack",
    ),
    Entry(
        "quora",
        "archive",
        522_931,
        10_000,
        _zip("quora", 15853968, "18fb154900ba42a600f84b839c173167"),
        dev_split="dev",
        own_documents=True,
    ),
    Entry(
        "dbpedia-entity",
        "archive",
        4_635_922,
        400,
        _zip("dbpedia-entity", 639285131, "c2a39eb420a3164af735795df012ac2c"),
        dev_split="dev",
    ),
    Entry("scidocs", "archive", 25_657, 1_000, _zip("scidocs", 142471588, "38121350fc3a4d2f48850f6aff52e4a9")),
    Entry(
        "fever",
        "archive",
        5_416_568,
        6_666,
        _zip("fever", 1236988269, "5a818580227bfb4b35bb6fa46d9b6c03"),
        dev_split="dev",
    ),
    Entry(
        "climate-fever",
        "archive",
        5_416_593,
        1_535,
        _zip("climate-fever", 1228666652, "8b66f0a9126c521bae2bde127b4dc99d"),
    ),
    Entry("scifact", "archive", 5_183, 300, _zip("scifact", 2816079, "5f7d1de60b170fc8027bb7898e2efca1")),
)

_PASSAGE_ENTRIES = (
    Entry("msmarco", "archive", 8_841_823, 6_980, _MSMARCO, split="dev", measures=PASSAGE_MEASURES),
    Entry(
        "trec-dl-2019",
        "archive",
        8_841_823,
        43,
        _MSMARCO,
        dev_split="dev",
        measures=TREC_MEASURES,
        relevant_from=2,
        folder="msmarco",
    ),
    Entry(
        "trec-dl-2020",
        "trec-dl",
        8_841_823,
        54,
        (
            RemoteFile(
                "https://msmarco.z22.web.core.windows.net/msmarcoranking/msmarco-test2020-queries.tsv.gz",
                4131,
                "00a406fb0d14ed3752d70d1e4eb98600",
            ),
            RemoteFile(
                "https://trec.nist.gov/data/deep/2020qrels-pass.txt", 218617, "0355ccee7509ac0463e8278186cdd8d1"
            ),
        ),
        dev_split="dev",
        measures=TREC_MEASURES,
        relevant_from=2,
        corpus_of="msmarco",
    ),
)

_OPEN_DOMAIN_ENTRIES = (
    Entry(
        "wikipedia-w100",
        "passages",
        21_015_324,
        None,
        (RemoteFile(f"{_DPR}/wikipedia_split/psgs_w100.tsv.gz", 4694541059, "612fe66e0b6b41ee28f806140226c563"),),
    ),
    Entry(
        "open-nq",
        "questions",
        21_015_324,
        3_610,
        (RemoteFile(f"{_DPR}/data/retriever/nq-test.qa.csv"),),
        measures=ANSWER_MEASURES,
        has_answers=True,
        corpus_of="wikipedia-w100",
    ),
    Entry(
        "open-triviaqa",
        "questions",
        21_015_324,
        11_313,
        (RemoteFile(f"{_DPR}/data/retriever/trivia-test.qa.csv.gz"),),
        measures=ANSWER_MEASURES,
        has_answers=True,
        corpus_of="wikipedia-w100",
    ),
)


def _reqa(name: str, questions: int, md5: str, file: str = "", address: str = "") -> Entry:
    """A set of MultiReQA. How many sentences there are, the splitting says; the questions are the file's."""
    saved_as = f"{file or name}.jsonl.gz"
    return Entry(
        f"multireqa/{name.lower()}",
        "sentences",
        None,
        questions,
        (RemoteFile(address or f"{_MRQA}/{saved_as}", None, md5, saved_as),),
        measures=SENTENCE_MEASURES,
    )


_SENTENCE_ENTRIES = (
    _reqa("SQuAD", 10_507, "05f3f16c5c31ba8e46ff5fa80647ac46"),
    _reqa("NaturalQuestions", 12_836, "c0347eebbca02d10d1b07b9a64efe61d", "NaturalQuestionsShort"),
    _reqa("TriviaQA", 7_785, "5c9fdc633dfe196f1b428c81205fd82f", "TriviaQA-web"),
    _reqa("HotpotQA", 5_904, "125a96846c830381a8acff110ff6bd84"),
    _reqa("SearchQA", 16_980, "9217ad3f6925c384702f2a4e6d520c38"),
    _reqa(
        "BioASQ",
        1_504,
        "70752a39beb826a022ab21353cb66e54",
        address="http://participants-area.bioasq.org/MRQA2019/",
    ),
    _reqa("RelationExtraction", 2_948, "266be75954fcb31b9dbfa9be7a61f088"),
    _reqa("TextbookQA", 1_503, "8b52d21381d841f8985839ec41a6c7f7"),
)

CATALOGUE: Mapping[str, Entry] = MappingProxyType(
    {entry.name: entry for entry in (*_BEIR_ENTRIES, *_PASSAGE_ENTRIES, *_OPEN_DOMAIN_ENTRIES, *_SENTENCE_ENTRIES)}
)

GROUPS = MappingProxyType(
    {
        "beir": tuple(entry.name for entry in _BEIR_ENTRIES if entry.kind != "licensed"),
        "trec-dl": ("trec-dl-2019", "trec-dl-2020"),
        "multireqa": tuple(entry.name for entry in _SENTENCE_ENTRIES),
    }
)
"""Names for several. `beir` is what BEIR averages and anybody may download: MS MARCO is its training set, not in it."""


def entries_of(word: str, catalogue: Mapping[str, Entry] = CATALOGUE) -> tuple[tuple[Entry, str | None], ...]:
    """The entries that a word names, each with the one part that is meant (None: all of it).

    `beir/nfcorpus` is `nfcorpus`; `cqadupstack/android` is one part. Raises DataError with the nearest names.
    """
    name = word.removeprefix("beir/")
    if name in GROUPS:
        return tuple((catalogue[member], None) for member in GROUPS[name])
    if name in catalogue:
        return ((catalogue[name], None),)
    whole, _, part = name.rpartition("/")
    if whole in catalogue and part in catalogue[whole].parts:
        return ((catalogue[whole], part),)
    near = difflib.get_close_matches(name, [*catalogue, *GROUPS], n=3) or sorted(GROUPS)
    raise DataError(
        f"{word!r} is neither a folder nor the name of a collection",
        expected="a folder in BEIR format, squad:FILE, reqa:FILE, or a name that `largede datasets` lists",
        mend=f"did you mean {' or '.join(near)}?",
    )
