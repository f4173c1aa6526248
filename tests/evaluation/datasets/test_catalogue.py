"""Every entry of the catalogue says all that an evaluation needs, and as the papers say it."""

import re

import pytest

from largede.errors import DataError
from largede.evaluation.datasets.catalogue import CATALOGUE, GROUPS, Entry, entries_of
from largede.evaluation.measures.metrics import per_query

EIGHTEEN = (
    "trec-covid bioasq nfcorpus nq hotpotqa fiqa signal1m trec-news robust04 arguana webis-touche2020 cqadupstack "
    "quora dbpedia-entity scidocs fever climate-fever scifact"
)
LICENSED = {"bioasq", "signal1m", "trec-news", "robust04"}

every_entry = pytest.mark.parametrize("entry", CATALOGUE.values(), ids=lambda entry: entry.name)


@every_entry
def test_an_entry_is_complete(entry: Entry) -> None:
    assert CATALOGUE[entry.name] is entry
    assert entry.kind == "sentences" or entry.documents
    assert entry.kind == "passages" or entry.queries
    assert entry.split
    assert entry.dev_split != entry.split, "what is reported may not be tuned on"
    assert entry.dev_split in (None, "dev"), "a train split is never tuned on"
    assert entry.max_query_tokens > 0
    assert entry.max_passage_tokens > 0
    assert bool(entry.files) is (entry.licensed is None)
    assert entry.has_answers is entry.measures[0].startswith("Answer@")
    assert entry.corpus_of is None or CATALOGUE[entry.corpus_of].corpus_of is None
    assert (entry.group is not None) is bool(entry.parts)


@every_entry
def test_its_files_have_addresses_names_and_checksums(entry: Entry) -> None:
    for file in entry.files:
        assert re.fullmatch(r"https?://[\w.-]+/\S+", file.address)
        assert re.fullmatch(r"[\w.-]+", file.name)
        assert file.md5 is None or re.fullmatch(r"[0-9a-f]{32}", file.md5)
        assert (file.md5 is None) is (entry.kind == "questions"), "nobody publishes those of DPR's questions"
        assert file.size is None or file.size > 0
    if entry.kind == "archive":
        assert entry.files[0].address == (
            f"https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets/{entry.folder_name}.zip"
        )
        assert entry.files[0].size


@every_entry
def test_its_measures_can_be_computed(entry: Entry) -> None:
    run_measures = [name for name in entry.measures if not name.startswith("Answer@")]
    if run_measures:
        assert set(per_query({}, {"q": {"d": 3}}, tuple(run_measures))) == set(run_measures)


def test_the_eighteen_of_beir_and_ms_marco_are_there() -> None:
    names = EIGHTEEN.split()
    assert len(names) == 18
    assert set(names) | {"msmarco"} <= set(CATALOGUE)
    assert {name for name in CATALOGUE if CATALOGUE[name].licensed} == LICENSED
    assert set(GROUPS["beir"]) == set(names) - LICENSED


def test_no_two_files_would_have_one_name() -> None:
    files = {file for entry in CATALOGUE.values() for file in entry.files}
    assert len({file.name for file in files}) == len(files)


def test_lengths_are_the_papers() -> None:
    others = {
        name: (entry.max_query_tokens, entry.max_passage_tokens)
        for name, entry in CATALOGUE.items()
        if (entry.max_query_tokens, entry.max_passage_tokens) != (64, 512)
    }
    assert others == {"arguana": (512, 512), "trec-news": (64, 768), "robust04": (64, 768)}


def test_splits_are_beirs() -> None:
    assert {name for name, entry in CATALOGUE.items() if entry.split != "test"} == {"msmarco"}
    assert CATALOGUE["msmarco"].split == "dev"
    tunable = {name for name, entry in CATALOGUE.items() if entry.dev_split}
    beir = {"nfcorpus", "hotpotqa", "fiqa", "quora", "dbpedia-entity", "fever"}
    assert tunable == beir | {"trec-dl-2019", "trec-dl-2020"}


def test_graded_judgements_count_from_two_in_the_deep_learning_track_alone() -> None:
    assert {name for name, entry in CATALOGUE.items() if entry.relevant_from != 1} == set(GROUPS["trec-dl"])


def test_the_first_measure_is_the_one_that_is_published() -> None:
    firsts = {name: entry.measures[0] for name, entry in CATALOGUE.items()}
    assert firsts["msmarco"] == "MRR@10"
    assert "Recall@1000" in CATALOGUE["msmarco"].measures
    assert {firsts[name] for name in GROUPS["multireqa"]} == {"P@1"}
    assert {firsts[name] for name in (*EIGHTEEN.split(), *GROUPS["trec-dl"])} == {"nDCG@10"}


def test_cqadupstack_has_its_twelve_parts() -> None:
    assert len(CATALOGUE["cqadupstack"].parts) == 12
    assert [part for _, part in entries_of("cqadupstack")] == [None]
    assert entries_of("beir/cqadupstack/tex") == ((CATALOGUE["cqadupstack"], "tex"),)


def test_words_name_entries() -> None:
    assert entries_of("beir/nfcorpus") == entries_of("nfcorpus") == ((CATALOGUE["nfcorpus"], None),)
    assert [entry.name for entry, _ in entries_of("beir")] == list(GROUPS["beir"])
    assert entries_of("multireqa/squad")[0][0].queries == 10_507


@pytest.mark.parametrize(
    ("word", "near"), [("nfcorpsu", "nfcorpus"), ("touche", "beir"), ("cqadupstack/java", "cqadup")]
)
def test_an_unknown_name_is_answered_with_near_ones(word: str, near: str) -> None:
    with pytest.raises(DataError, match="neither a folder nor the name") as error:
        entries_of(word)
    assert near in error.value.mend
