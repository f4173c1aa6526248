"""`largede datasets`: what it lists, what it fetches, how it refuses."""

from pathlib import Path

import pytest
from beir_folder import write_collection

from largede.cli import main
from largede.evaluation.datasets.catalogue import CATALOGUE


def test_the_list_has_every_name_and_says_what_is_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_collection(tmp_path / "scifact")
    assert main(["datasets", "--cache", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines[1 : 1 + len(CATALOGUE)]}
    assert set(rows) == set(CATALOGUE)
    assert rows["scifact"].endswith("yes")
    assert " ".join(rows["nfcorpus"].split()) == "nfcorpus 3,633 323 test dev 64/512 nDCG@10 Recall@100 2.4 MB no"
    assert "1,406*" in rows["arguana"]
    assert "512/512" in rows["arguana"]
    said = "\n".join(lines)
    assert f"robust04: {tmp_path / 'robust04'}" in said
    assert "https://trec.nist.gov/data/cd45/index.html" in said


def test_names_are_made_ahead_and_their_folders_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("nfcorpus", "scifact"):
        write_collection(tmp_path / name)
    assert main(["datasets", "nfcorpus", "scifact", "--cache", str(tmp_path), "--offline"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}  {tmp_path / name}" for name in ("nfcorpus", "scifact")]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("nfcorpus", "nfcorpus.zip is not here, and nothing may be fetched"),
        ("wikipedia-w100", "psgs_w100.tsv.gz is not here"),
        ("bioasq", "bioasq is not public"),
        ("nfcorpsu", "did you mean nfcorpus"),
        ("squad:nowhere.json", "there is no file nowhere.json"),
    ],
)
def test_refusals_are_one_message_and_status_2(
    word: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["datasets", word, "--cache", str(tmp_path), "--offline"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "to mend:" in error
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
