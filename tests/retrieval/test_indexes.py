"""Approximate indexes: built once, checked when read, scored again, and never quietly another than asked for."""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_vectors import clustered, write_embeddings

from largede.errors import DataError, MachineError, RecipeError
from largede.retrieval.encode import Embeddings
from largede.retrieval.runs import Run
from largede.retrieval.search import devices, search
from largede.retrieval.search.approximate import build, candidates_for, default_codes, default_lists, open_index
from largede.retrieval.search.index_file import default_folder
from largede.retrieval.search_settings import (
    APPROXIMATE_KINDS,
    PAPER_HNSW,
    HnswSettings,
    IvfPqSettings,
    SearchSettings,
    add_search_flags,
    search_settings_from_flags,
)

ROWS, WIDTH, QUERIES = 3000, 32, 40
NAMES = [f"q{i}" for i in range(QUERIES)]
ASKED = clustered(QUERIES, WIDTH, 60, seed=1)


def settings_for(kind: str, **more: Any) -> SearchSettings:
    return SearchSettings(kind=kind, hnsw=HnswSettings(16, 60, 60), **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Embeddings:
    table = clustered(ROWS, WIDTH, 60)
    table[500:520] = table[500]
    return write_embeddings(tmp_path_factory.mktemp("vectors") / "made", table, edges=(1000, 1700))


def recall(run: Run, exact: Run, depth: int) -> float:
    return float(np.mean([len({*run[q].ids[:depth]} & {*exact[q].ids[:depth]}) / depth for q in exact]))


@pytest.mark.parametrize("kind", APPROXIMATE_KINDS)
def test_finds_most_with_the_scores_of_exact_search(kind: str, embeddings: Embeddings) -> None:
    exact = search(embeddings, NAMES, ASKED, 20)
    run = search(embeddings, NAMES, ASKED, 20, settings=settings_for(kind))
    assert recall(run, exact, 20) > 0.9
    for query in NAMES:
        true = exact[query].scored()
        found = run[query].scored()
        assert all(found[id_] == true[id_] for id_ in found.keys() & true.keys())
        pairs = list(zip(run[query].scores.tolist(), run[query].ids, strict=True))
        assert pairs == sorted(pairs, reverse=True)


def test_all_candidates_scored_again_are_exact_search(embeddings: Embeddings) -> None:
    everything = IvfPqSettings(lists=4, codes=8, probes=4)
    settings = settings_for("ivf-pq", ivf_pq=everything, candidates=ROWS)
    run, exact = search(embeddings, NAMES, ASKED, 50, settings=settings), search(embeddings, NAMES, ASKED, 50)
    for query in NAMES:
        assert run[query].ids == exact[query].ids
        np.testing.assert_array_equal(run[query].scores, exact[query].scores)
    rough = search(embeddings, NAMES, ASKED, 50, settings=replace(settings, rescore=False))
    assert 0.3 < recall(rough, exact, 50) < 1


def test_a_query_does_not_find_itself_in_an_index_either(embeddings: Embeddings) -> None:
    own = np.load(embeddings.folder / "shard-00000.npy")[7:8]
    assert search(embeddings, ["q"], own, 10, settings=settings_for("hnsw"))["q"].ids[0] == "d7"
    assert "d7" not in search(embeddings, ["d7"], own, 10, settings=settings_for("hnsw"))["d7"].ids


@pytest.mark.parametrize("kind", [*APPROXIMATE_KINDS, "flat", "flat-fp16", "flat-bf16"])
def test_the_same_index_is_built_twice(kind: str, embeddings: Embeddings) -> None:
    import faiss

    small = IvfPqSettings(lists=4, codes=2)
    settings = settings_for(kind, ivf_pq=small)
    one, other = (faiss.serialize_index(build(embeddings, settings)[0]) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    if kind == "ivf-pq":
        reseeded = faiss.serialize_index(build(embeddings, replace(settings, seed=7))[0])
        assert not np.array_equal(one, reseeded)


def test_an_index_is_built_once_and_used_again(embeddings: Embeddings, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    search(embeddings, NAMES, ASKED, 10, settings=settings_for("hnsw"), index_folder=folder)
    before = (folder / "index.faiss").stat().st_mtime_ns
    search(embeddings, NAMES, ASKED, 10, settings=settings_for("hnsw"), index_folder=folder)
    # What only searching depends on does not need another.
    deeper = replace(settings_for("hnsw"), hnsw=HnswSettings(16, 60, 300))
    search(embeddings, NAMES, ASKED, 10, settings=deeper, index_folder=folder)
    assert (folder / "index.faiss").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_an_index_of_other_embeddings_or_settings_is_refused(embeddings: Embeddings, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    open_index(embeddings, settings_for("hnsw"), folder)
    other = write_embeddings(tmp_path / "other", clustered(ROWS, WIDTH, 60, seed=9))
    with pytest.raises(DataError, match="built with other embeddings"):
        open_index(other, settings_for("hnsw"), folder)
    with pytest.raises(DataError, match="built with other settings"):
        open_index(embeddings, settings_for("hnsw-sq8"), folder)
    assert default_folder(other, settings_for("hnsw")) != default_folder(embeddings, settings_for("hnsw"))


@pytest.mark.parametrize("damage", ["bit", "short", "gone", "manifest", "field", "no manifest"])
def test_a_damaged_index_is_named(damage: str, embeddings: Embeddings, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    open_index(embeddings, settings_for("flat"), folder)
    path, manifest = folder / "index.faiss", folder / "manifest.json"
    whole = path.read_bytes()
    if damage == "bit":
        path.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    elif damage == "short":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "gone":
        path.unlink()
    elif damage == "manifest":
        manifest.write_bytes(b"{")
    elif damage == "field":
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"rows": "many"}))
    else:
        manifest.unlink()
    with pytest.raises(DataError, match="is damaged|cannot be read"):
        open_index(embeddings, settings_for("flat"), folder)


def test_an_error_while_building_leaves_nothing(embeddings: Embeddings, tmp_path: Path) -> None:
    broken = replace(embeddings, shards=(*embeddings.shards[:2], replace(embeddings.shards[2], vectors_sha256="0")))
    with pytest.raises(DataError, match="missing or damaged"):
        open_index(broken, settings_for("hnsw"), tmp_path / "index")
    assert not list(tmp_path.iterdir())


def test_numbers_that_do_not_fit_the_corpus_are_refused(embeddings: Embeddings, tmp_path: Path) -> None:
    too_many = settings_for("ivf-pq", ivf_pq=IvfPqSettings(lists=4000))
    with pytest.raises(DataError, match="4,000 lists and 256 centroids for 3,000 documents"):
        open_index(embeddings, too_many)
    with pytest.raises(DataError, match="5 bytes for a document of width 32"):
        open_index(embeddings, settings_for("ivf-pq", ivf_pq=IvfPqSettings(codes=5)))
    few = write_embeddings(tmp_path / "few", clustered(200, WIDTH, 5))
    with pytest.raises(DataError, match="on few documents --index flat is faster and exact"):
        open_index(few, settings_for("ivf-pq"))


def test_defaults_follow_the_corpus() -> None:
    assert default_lists(300) == 7 and default_lists(10_000) == 256 and default_lists(1_000_000) == 4000
    assert default_codes(768) == 192 and default_codes(384) == 96 and default_codes(7) == 1 and default_codes(2) == 1
    assert candidates_for(SearchSettings(kind="ivf-pq"), 100) == 400
    assert candidates_for(SearchSettings(kind="hnsw", candidates=30), 100) == 100


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "annoy"}, "an index kind 'annoy'"),
        ({"device": "gpu"}, "a search device 'gpu'"),
        ({"device": "cpu", "gpus": 2}, "2 GPUs on the device 'cpu'"),
        ({"gpus": 0}, "0 GPUs"),
        ({"kind": "hnsw", "device": "cuda"}, "of kind hnsw on a GPU"),
        ({"hnsw": HnswSettings(links=0)}, "links of 0"),
        ({"hnsw": HnswSettings(links=1)}, "1 link"),
        ({"ivf_pq": IvfPqSettings(probes=-1)}, "probes of -1"),
        ({"candidates": 0}, "candidates of 0"),
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        SearchSettings(**wrong)


def test_gpus_that_are_not_there_are_missed(embeddings: Embeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_gpus_here", lambda: 0)
    with pytest.raises(MachineError, match="--search-device cuda and FAISS sees no GPU"):
        search(embeddings, NAMES, ASKED, 10, settings=SearchSettings(device="cuda"))
    monkeypatch.setattr(devices, "_gpus_here", lambda: 2)
    with pytest.raises(MachineError, match="FAISS sees 2 GPUs, 3 were asked for"):
        devices.gpus_of(SearchSettings(gpus=3))
    with pytest.raises(MachineError, match="FAISS sees 2 GPUs"):
        devices.gpus_of(SearchSettings(device="cuda:2"))
    assert devices.gpus_of(SearchSettings()) == devices.gpus_of(SearchSettings(device="cuda", gpus=2)) == (0, 1)
    assert devices.gpus_of(SearchSettings(device="cuda:1")) == (1,)
    assert devices.gpus_of(SearchSettings(device="cpu")) == ()


def test_a_process_of_several_keeps_to_its_own_gpu() -> None:
    assert devices.for_process(SearchSettings(), "cuda:3").device == "cuda:3"
    assert devices.for_process(SearchSettings(device="cpu"), "cuda:3").device == "cpu"
    assert devices.for_process(SearchSettings(), "cpu").device == "auto"
    assert devices.for_process(SearchSettings(kind="hnsw"), "cuda:1").device == "auto"


def test_flags_say_all_settings() -> None:
    parser = argparse.ArgumentParser()
    add_search_flags(parser)
    assert search_settings_from_flags(parser.parse_args([])) == SearchSettings()
    paper = "--index hnsw --hnsw-links 512 --hnsw-construction 200 --hnsw-search 128 --index-threads 8"
    expected = SearchSettings(kind="hnsw", hnsw=PAPER_HNSW, build_threads=8)
    assert search_settings_from_flags(parser.parse_args(paper.split())) == expected
    lists = "--index ivf-pq --ivf-lists 9 --pq-codes 8 --ivf-probes 3 --candidates 70 --no-rescore"
    expected = SearchSettings(kind="ivf-pq", ivf_pq=IvfPqSettings(9, 8, 3), candidates=70, rescore=False)
    assert search_settings_from_flags(parser.parse_args(lists.split())) == expected
    cards = search_settings_from_flags(parser.parse_args(["--search-device", "cuda", "--search-gpus", "4"]))
    assert cards == SearchSettings(device="cuda", gpus=4)


def test_flags_import_nothing_heavy() -> None:
    heavy = "[m for m in ('faiss', 'torch', 'numpy') if m in sys.modules]"
    script = f"import sys, largede.retrieval.search_settings; print({heavy})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_list_depends_on_what_its_kind_reads() -> None:
    assert SearchSettings(seed=3).of_list() == SearchSettings(device="cpu").of_list()
    assert SearchSettings(kind="hnsw").of_list() != SearchSettings(kind="hnsw", rescore=False).of_list()
    deep = SearchSettings(kind="hnsw", hnsw=HnswSettings(search=500))
    assert deep.of_list() != SearchSettings(kind="hnsw").of_list()
    assert deep.of_index() == SearchSettings(kind="hnsw").of_index()


@pytest.mark.parametrize(
    "flag", ["--hnsw-links", "--hnsw-search", "--ivf-lists", "--pq-codes", "--candidates", "--index-threads"]
)
def test_a_number_that_cannot_be_names_its_own_flag(flag: str) -> None:
    parser = argparse.ArgumentParser()
    add_search_flags(parser)
    with pytest.raises(RecipeError, match=f"change {flag}$"):
        search_settings_from_flags(parser.parse_args([flag, "0"]))
