"""Words become collections: names, folders, folders of folders; downloads made once, by one process."""

import hashlib
import json
import multiprocessing
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from beir_folder import write_collection, write_jsonl
from flaky_server import Flaky, flaky_server
from made_archives import HASTY, beir_files, lines, remote, zipped

from largede.errors import DataError, MachineError
from largede.evaluation.datasets.catalogue import CATALOGUE, Entry
from largede.evaluation.datasets.collection import Collection
from largede.evaluation.datasets.collections import open_collections
from largede.retrieval.corpus import open_benchmark, open_corpus


@pytest.fixture
def server() -> Iterator[Flaky]:
    with flaky_server() as flaky:
        yield flaky


def published(server: Flaky, name: str, *files: tuple[str, bytes], checked: bool = True) -> dict[str, Entry]:
    """The catalogue with one entry whose files this server has."""
    for file, data in files:
        server.files[file] = data
    remotes = tuple(remote(server.url(file), data if checked else None) for file, data in files)
    return {**CATALOGUE, name: replace(CATALOGUE[name], files=remotes)}


def opened(words: list[str], cache: Path, catalogue: Mapping[str, Entry] = CATALOGUE) -> tuple[Collection, ...]:
    return open_collections(words, cache=cache, catalogue=catalogue, patience=HASTY)


def test_a_name_is_downloaded_unpacked_and_here_from_then_on(server: Flaky, tmp_path: Path) -> None:
    archive = zipped(beir_files("nfcorpus/", ("test", "dev", "train")))
    catalogue = published(server, "nfcorpus", ("nfcorpus.zip", archive))
    (found,) = opened(["nfcorpus"], tmp_path, catalogue)
    assert found == Collection("nfcorpus", tmp_path / "nfcorpus", dev_split="dev")
    assert len(open_benchmark(found.folder, found.split).queries) == 2
    assert opened(["beir/nfcorpus"], tmp_path, catalogue) == (found,)
    assert len(server.requests) == 1
    assert open_collections(["nfcorpus"], cache=tmp_path, catalogue=catalogue, offline=True) == (found,)
    said = json.loads((found.folder / "dataset.json").read_text())
    assert said["files"][0]["md5"] == hashlib.md5(archive).hexdigest()
    assert list((tmp_path / "downloads").iterdir()) == [], "the archive is not kept twice"


def test_a_wrong_checksum_leaves_the_cache_as_it_was(server: Flaky, tmp_path: Path) -> None:
    archive = zipped(beir_files("nfcorpus/"))
    catalogue = published(server, "nfcorpus", ("nfcorpus.zip", archive))
    server.files["nfcorpus.zip"] = archive[:-1] + b"x"
    with pytest.raises(DataError, match="has the MD5"):
        opened(["nfcorpus"], tmp_path, catalogue)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_archive_without_what_it_should_hold_leaves_no_folder(server: Flaky, tmp_path: Path) -> None:
    files = beir_files("scifact/", ("train",))
    catalogue = published(server, "scifact", ("scifact.zip", zipped(files)))
    with pytest.raises(DataError, match="does not hold all of scifact"):
        opened(["scifact"], tmp_path, catalogue)
    assert not (tmp_path / "scifact").exists()


def test_an_archive_without_a_folder_of_its_own_is_unpacked_too(server: Flaky, tmp_path: Path) -> None:
    catalogue = published(server, "scifact", ("scifact.zip", zipped(beir_files())))
    assert open_benchmark(opened(["scifact"], tmp_path, catalogue)[0].folder, "test").name == "scifact"


def test_a_file_that_was_put_there_by_hand_is_used_and_stays(server: Flaky, tmp_path: Path) -> None:
    archive = zipped(beir_files("scifact/"))
    catalogue = published(server, "scifact", ("scifact.zip", archive))
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "scifact.zip").write_bytes(archive)
    open_collections(["scifact"], cache=tmp_path, catalogue=catalogue, offline=True)
    assert server.requests == []
    assert (tmp_path / "downloads" / "scifact.zip").is_file()


def test_offline_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARGEDE_OFFLINE", "1")
    with pytest.raises(MachineError, match=r"scifact\.zip is not here") as error:
        open_collections(["scifact"], cache=tmp_path)
    assert str(tmp_path / "downloads" / "scifact.zip") in str(error.value)
    assert "5f7d1de60b170fc8027bb7898e2efca1" in str(error.value)


def test_a_half_folder_is_not_taken_for_whole(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "scifact" / "corpus.jsonl", [{"_id": "d", "text": "t"}])
    with pytest.raises(DataError, match="does not hold all of scifact"):
        open_collections(["scifact"], cache=tmp_path)


@pytest.mark.parametrize("name", ["bioasq", "signal1m", "trec-news", "robust04"])
def test_licensed_sets_say_where_to_ask_and_work_once_they_are_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{name} is not public") as error:
        open_collections([name], cache=tmp_path)
    assert str(tmp_path / name) in error.value.expected
    assert "http" in error.value.mend
    write_collection(tmp_path / name)
    (found,) = open_collections([name], cache=tmp_path)
    assert found.folder == tmp_path / name
    assert found.max_passage_tokens == CATALOGUE[name].max_passage_tokens


def test_cqadupstack_is_twelve_collections_of_one_group(server: Flaky, tmp_path: Path) -> None:
    parts = CATALOGUE["cqadupstack"].parts
    files = {name: data for part in parts for name, data in beir_files(f"cqadupstack/{part}/").items()}
    catalogue = published(server, "cqadupstack", ("cqadupstack.zip", zipped(files)))
    found = opened(["cqadupstack"], tmp_path, catalogue)
    assert [collection.name for collection in found] == [f"cqadupstack/{part}" for part in parts]
    assert {collection.group for collection in found} == {"cqadupstack"}
    assert all(open_benchmark(collection.folder, "test") for collection in found)
    (alone,) = opened(["cqadupstack/android"], tmp_path, catalogue)
    assert (alone.name, alone.group, alone.folder) == ("cqadupstack/android", None, found[0].folder)


def test_an_archive_that_lacks_a_sub_forum_is_refused(server: Flaky, tmp_path: Path) -> None:
    parts = CATALOGUE["cqadupstack"].parts[1:]
    files = {name: data for part in parts for name, data in beir_files(f"cqadupstack/{part}/").items()}
    catalogue = published(server, "cqadupstack", ("cqadupstack.zip", zipped(files)))
    with pytest.raises(DataError, match="does not hold all of cqadupstack"):
        opened(["cqadupstack"], tmp_path, catalogue)


def test_ms_marco_and_the_deep_learning_tracks_share_one_corpus(server: Flaky, tmp_path: Path) -> None:
    archive = zipped(beir_files("msmarco/", ("train", "dev", "test")))
    queries = b"q7\tthe seventh question\nq8\tone that nobody judged\n"
    qrels = b"q7 0 d1 3\nq7 0 d3 1\n"
    catalogue = published(server, "trec-dl-2020", ("queries.tsv", queries), ("qrels.txt", qrels))
    catalogue |= {
        name: entry
        for name, entry in published(server, "msmarco", ("msmarco.zip", archive)).items()
        if name == "msmarco"
    }
    catalogue["trec-dl-2019"] = replace(catalogue["trec-dl-2019"], files=catalogue["msmarco"].files)
    marco, first, second = opened(["msmarco", "trec-dl"], tmp_path, catalogue)
    assert (marco.split, marco.dev_split, marco.measures[0]) == ("dev", None, "MRR@10")
    assert (first.folder, first.split, first.relevant_from) == (marco.folder, "test", 2)
    benchmark = open_benchmark(second.folder, second.split)
    assert benchmark.queries == {"q7": "the seventh question"}
    assert benchmark.qrels == {"q7": {"d1": 3, "d3": 1}}
    assert benchmark.corpus.fingerprint == open_corpus(marco.folder).fingerprint
    assert second.dev_split == "dev"
    assert open_benchmark(second.folder, "dev").qrels == open_benchmark(marco.folder, "dev").qrels


def test_open_domain_questions_share_the_passages_and_carry_answers(server: Flaky, tmp_path: Path) -> None:
    passages = b'id\ttext\ttitle\n1\t"Aaron was a ""prophet"""\tAaron\n2\tplain text\tOther\n'
    questions = b"who was aaron\t['a prophet', \"Moses' brother\"]\n"
    catalogue = published(server, "wikipedia-w100", ("psgs.tsv", passages))
    catalogue |= {"open-nq": published(server, "open-nq", ("nq-test.qa.csv", questions), checked=False)["open-nq"]}
    (found,) = opened(["open-nq"], tmp_path, catalogue)
    assert found.has_answers
    assert found.measures[0] == "Answer@1"
    assert [(d.id, d.title, d.text) for d in open_corpus(found.folder).documents()] == [
        ("1", "Aaron", 'Aaron was a "prophet"'),
        ("2", "Other", "plain text"),
    ]
    assert (found.folder / "corpus.jsonl").is_symlink()
    query = json.loads((found.folder / "queries.jsonl").read_text())
    assert query["metadata"]["answers"] == ["a prophet", "Moses' brother"]
    said = json.loads((found.folder / "dataset.json").read_text())
    assert said["files"][0]["verified"] is False
    with pytest.raises(DataError, match="a corpus without queries"):
        opened(["wikipedia-w100"], tmp_path, catalogue)


def test_a_set_of_multireqa_has_sentences_as_candidates(server: Flaky, tmp_path: Path) -> None:
    context = {
        "context": "Bern is a city. It lies on the Aare.",
        "qas": [
            {
                "qid": "q1",
                "question": "Where does Bern lie?",
                "answers": ["on the Aare"],
                "detected_answers": [{"text": "on the Aare", "char_spans": [[24, 34]]}],
            }
        ],
    }
    data = lines([{"header": {"dataset": "SQuAD", "split": "dev"}}, context])  # type: ignore[list-item, dict-item]
    catalogue = published(server, "multireqa/squad", ("SQuAD.jsonl.gz", data))
    (found,) = opened(["multireqa/squad"], tmp_path, catalogue)
    assert found.measures == ("P@1", "MRR@1000")
    benchmark = open_benchmark(found.folder, found.split)
    relevant = next(iter(benchmark.qrels["q1"]))
    assert benchmark.corpus.lookup({relevant})[relevant].text == "It lies on the Aare."


def test_a_folder_is_a_collection_and_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_collection(tmp_path / "mine", splits=("test", "dev"))
    write_collection(tmp_path / "arguana")
    monkeypatch.chdir(tmp_path)
    mine, arguana = open_collections(["mine", "arguana"])
    assert mine == Collection("mine", Path("mine"), dev_split="dev")
    assert (arguana.folder, arguana.max_query_tokens, arguana.dev_split) == (Path("arguana"), 512, None)


def test_a_folder_with_a_name_of_the_catalogue_is_evaluated_as_that(tmp_path: Path) -> None:
    write_collection(tmp_path / "msmarco", splits=("test", "dev"))
    (found,) = open_collections([str(tmp_path / "msmarco")])
    assert (found.split, found.dev_split, found.measures[0]) == ("dev", None, "MRR@10")
    (named,) = open_collections([str(tmp_path / "msmarco")], split="test")
    assert (named.split, named.dev_split) == ("test", "dev")
    (tmp_path / "msmarco" / "qrels" / "dev.tsv").unlink()
    assert open_collections([str(tmp_path / "msmarco")])[0].split == "test"


def test_the_split_can_be_named_and_is_then_not_tuned_on(tmp_path: Path) -> None:
    write_collection(tmp_path / "mine", splits=("test", "dev"))
    (found,) = open_collections([str(tmp_path / "mine")], split="dev")
    assert (found.split, found.dev_split) == ("dev", None)


def test_a_folder_of_folders_becomes_a_group(tmp_path: Path) -> None:
    for part in ("b", "a"):
        write_collection(tmp_path / "many" / part)
    (tmp_path / "many" / "notes").mkdir()
    found = open_collections([str(tmp_path / "many")])
    assert [(c.name, c.group, c.folder) for c in found] == [
        (f"many/{part}", "many", tmp_path / "many" / part) for part in "ab"
    ]


def test_a_folder_with_answers_and_no_qrels_is_measured_by_its_answers(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "qa" / "corpus.jsonl", [{"_id": "d", "text": "t"}])
    write_jsonl(tmp_path / "qa" / "queries.jsonl", [{"_id": "q", "text": "t", "metadata": {"answers": ["t"]}}])
    (found,) = open_collections([str(tmp_path / "qa")])
    assert found.has_answers
    assert found.measures[0] == "Answer@1"


def test_other_folders_and_equal_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds nothing"):
        open_collections([str(tmp_path / "empty")])
    with pytest.raises(DataError, match="an empty name of a collection"):
        open_collections([""])
    for side in ("one", "two"):
        write_collection(tmp_path / side / "same")
    with pytest.raises(DataError, match="two collections are called 'same'"):
        open_collections([str(tmp_path / side / "same") for side in ("one", "two")])


def test_several_processes_at_once_download_once(server: Flaky, tmp_path: Path) -> None:
    """All ranks of a launcher open the same words."""
    archive = zipped(beir_files("nfcorpus/") | {"nfcorpus/more": random.Random(0).randbytes(60_000)})
    catalogue = published(server, "nfcorpus", ("nfcorpus.zip", archive))
    server.pause_s = 0.05
    entry = catalogue["nfcorpus"]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.starmap(_open_one, [(entry, tmp_path)] * 3)
    assert found == [str(tmp_path / "nfcorpus")] * 3
    assert len(server.requests) == 1
    assert list((tmp_path / "claims").iterdir()) == []


def _open_one(entry: Entry, cache: Path) -> str:
    (found,) = open_collections([entry.name], cache=cache, catalogue={entry.name: entry}, patience=HASTY)
    return str(found.folder)


def test_killed_again_and_again_a_collection_is_whole_or_not_there(server: Flaky, tmp_path: Path) -> None:
    """Killed while it downloads, compares, unpacks or renames, at whatever moment that was."""
    archive = zipped(beir_files("nfcorpus/") | {"nfcorpus/more": random.Random(1).randbytes(150_000)})
    entry = published(server, "nfcorpus", ("nfcorpus.zip", archive))["nfcorpus"]
    server.pause_s = 0.02  # 0.75 s in all
    rng, kills = random.Random(2), 0
    spawn = multiprocessing.get_context("spawn")
    while True:
        process = spawn.Process(target=_open_one, args=(entry, tmp_path))
        begun = len(server.requests)
        process.start()
        while process.is_alive() and len(server.requests) == begun:
            time.sleep(0.005)
        process.join(rng.uniform(0.1, 0.4))
        if process.exitcode == 0:
            break
        assert process.exitcode is None, "it failed by itself"
        process.kill()
        process.join()
        kills += 1
        assert not (tmp_path / "nfcorpus").exists() or (tmp_path / "nfcorpus" / "dataset.json").is_file()
    assert kills >= 2
    assert (tmp_path / "nfcorpus" / "more").read_bytes() == random.Random(1).randbytes(150_000)
    assert server.sent < 2 * len(archive), "what had come was kept"
    assert not list(tmp_path.glob(".*.partial"))


def test_what_a_killed_process_left_is_cleared(server: Flaky, tmp_path: Path) -> None:
    catalogue = published(server, "nfcorpus", ("nfcorpus.zip", zipped(beir_files("nfcorpus/"))))
    left = tmp_path / ".nfcorpus.abcd.partial"
    left.mkdir()
    (left / "corpus.jsonl").write_bytes(b"half")
    opened(["nfcorpus"], tmp_path, catalogue)
    assert not left.exists()


def test_a_group_with_an_incomplete_part_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_collection(tmp_path / "group" / name)
    (tmp_path / "group" / "two" / "queries.jsonl").unlink()
    with pytest.raises(DataError, match=r"two has no queries\.jsonl"):
        open_collections([str(tmp_path / "group")])
    (tmp_path / "group" / "notes").mkdir()
    write_collection(tmp_path / "group" / "two")
    assert [found.name for found in open_collections([str(tmp_path / "group")])] == ["group/one", "group/two"]
