"""`largede measure`: tables and JSON of run files, and what it refuses."""

import json
from pathlib import Path

import pytest

from largede.cli import main
from largede.errors import DataError
from largede.evaluation.measures.measure import measure_run
from largede.retrieval.qrels import read_qrels

QRELS = "1 0 a 1\n1 0 b 0\n2 0 c 2\n3 0 d 1\n"
GOOD = "1 Q0 a 1 2.0 x\n1 Q0 b 2 1.0 x\n2 Q0 c 1 0.5 x\n3 Q0 d 1 0.1 x\n"
POOR = "# by hand\n\n1 Q0 b 1 2.0 x and more\n1\tQ0\ta\t2\t1.0\tx\n2 Q0 e 1 0.5 x\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, text in {"qrels.txt": QRELS, "good.trec": GOOD, "poor.trec": POOR}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def words(folder: Path, *runs: str) -> list[str]:
    return ["measure", "--run", *(str(folder / run) for run in runs), "--qrels", str(folder / "qrels.txt")]


def test_figures_and_differences_as_a_table(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words(files, "poor.trec", "good.trec"), "--measures", "MRR", "P@1"]) == 0
    said = capsys.readouterr().out
    assert "3 judged queries" in said and "poor.trec lacks 1 of them" in said
    rows = {tuple(line.split()[:2]): line for line in said.splitlines()}
    assert rows["good.trec", "1.0000"].count("1.0000") == 2
    assert rows["poor.trec", "0.1667"].split()[1] == "0.1667"
    assert "minus poor.trec" in said and "+0.8333" in rows["good.trec", "MRR"] and "+1.0000" in rows["good.trec", "P@1"]


def test_every_query_as_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = files / "figures.json"
    assert main([*words(files, "good.trec", "poor.trec"), "--measures", "MRR", "--per-query", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["runs"]["poor.trec"]["per_query"]["MRR"] == {"1": 0.5, "2": 0.0, "3": 0.0}
    assert found["runs"]["poor.trec"]["missing"] == 1
    assert found["runs"]["good.trec"]["figures"]["MRR"]["mean"] == 1.0
    (difference,) = found["differences"]["MRR"]
    assert (difference["one"], difference["other"]) == ("poor.trec", "good.trec")
    assert difference["mean"] == pytest.approx(-2.5 / 3) and difference["p_holm"] == difference["p_t"]


def test_holm_is_over_the_runs_compared(files: Path) -> None:
    from largede.evaluation.measures.measure import as_json, measure_runs

    (files / "other.trec").write_text(POOR.replace("1 Q0 b", "1 Q0 f"))
    runs = measure_runs(
        [files / name for name in ("good.trec", "poor.trec", "other.trec")], files / "qrels.txt", ["MRR"]
    )
    first, second = as_json(runs)["differences"]["MRR"]
    assert first["p_holm"] == second["p_holm"] == pytest.approx(2 * first["p_t"])


def test_depth_and_relevance_are_those_of_trec_eval(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words(files, "poor.trec"), "--measures", "MRR", "--depth", "1"]) == 0
    assert "0.0000" in capsys.readouterr().out
    assert main([*words(files, "good.trec"), "--measures", "MRR", "--relevant-from", "2"]) == 0
    assert "0.3333" in capsys.readouterr().out


def test_qrels_of_beir_are_the_same_judgements(files: Path) -> None:
    (files / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + QRELS.replace(" 0 ", "\t").replace(" ", "\t"))
    assert (
        read_qrels(files / "test.tsv")
        == read_qrels(files / "qrels.txt")
        == {
            "1": {"a": 1, "b": 0},
            "2": {"c": 2},
            "3": {"d": 1},
        }
    )


def test_runs_of_one_file_name_go_by_their_paths(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "else").mkdir()
    (files / "else" / "good.trec").write_text(POOR)
    assert main(words(files, "good.trec", "else/good.trec")) == 0
    assert f"minus {files / 'good.trec'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("good.trec", "", "is empty"),
        ("good.trec", "# nothing\n", "is empty"),
        ("good.trec", GOOD.replace(" x", ""), "line 1"),
        ("good.trec", GOOD + GOOD, "twice in the list of query"),
        ("good.trec", GOOD.replace("0.5", "inf"), "is not finite"),
        ("good.trec", "9 Q0 a 1 2.0 x\n", "no query of the run is judged (it has '9', the qrels '1')"),
        ("qrels.txt", "", "holds no judgement"),
        ("qrels.txt", "1 0 a 1\n1 0 b 0.5\n", "line 2: the grade '0.5'"),
        ("qrels.txt", "1 0 a 1\n1 0 b yes\n", "line 2: the grade 'yes'"),
        ("qrels.txt", "1 0 a 1\n1 b 1\n", "line 2: 3 columns"),
        ("qrels.txt", "1 1\n", "line 1: 2 columns"),
        ("qrels.txt", QRELS + "1 0 a 0\n", "line 5: '1' and 'a' judged twice"),
        ("good.trec", GOOD.replace("a", "a\0b"), "line 1"),
        ("qrels.txt", "1 0 a\0b 1\n", "ids without control characters"),
        ("qrels.txt", "1 0 a 0\n", "none with a relevant document"),
    ],
)
def test_bad_files_are_one_message(
    files: Path, file: str, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / file).write_text(text)
    out = files / "figures.json"
    assert main([*words(files, "good.trec"), "--per-query", str(out)]) == 2
    message = capsys.readouterr().err
    assert said in message and file in message and "to mend:" in message and "Traceback" not in message
    assert not out.exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--measures", "nDCG@0"], "the measure 'nDCG@0'"),
        (["--measures", "ndcg_cut_10"], "the measure 'ndcg_cut_10'"),
        (["--relevant-from", "3"], "the highest grade is 2"),
    ],
)
def test_bad_flags_are_one_message(files: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words(files, "good.trec"), *more]) == 2
    assert said in capsys.readouterr().err


def test_missing_files_and_runs_given_twice(files: Path) -> None:
    assert main(words(files, "good.trec", "good.trec")) == 2
    with pytest.raises(DataError, match="there is no run file"):
        measure_run(files / "absent", files / "qrels.txt")
    with pytest.raises(DataError, match="there is no qrels file"):
        measure_run(files / "good.trec", files / "absent")
