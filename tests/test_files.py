import os
import time
from pathlib import Path

import pytest

from largede.files import remove_folder, remove_unfinished, writing, writing_folder


def filled(folder: Path) -> Path:
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "report.json").write_text("{}")
    return folder


def test_a_folder_goes_with_all_it_holds_and_one_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove_folder(filled(tmp_path / "work"))
    remove_folder(tmp_path / "work")
    assert not any(tmp_path.iterdir())


def test_stopped_in_the_middle_nothing_is_left_under_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = filled(tmp_path / "work")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_folder(work)
    assert not work.exists()
    assert [name.endswith(".removed") for name in os.listdir(tmp_path)] == [True]
    remove_folder(filled(work))
    assert not any(tmp_path.iterdir())


def test_what_killed_processes_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    left = [tmp_path / "runs" / ".dense.trec.7-ab.partial", tmp_path / ".index.x1.partial", tmp_path / ".old.7.removed"]
    left[0].write_text("half")
    for folder in left[1:]:
        (folder / "inner").mkdir(parents=True)
        (folder / "inner" / ".list.partial").write_text("half")
    for path in [*tmp_path.rglob(".*")]:
        os.utime(path, (time.time() - 60,) * 2)
    (tmp_path / "runs" / "dense.trec").write_text("whole")
    with writing(tmp_path / "runs" / "bm25.trec") as stream, writing_folder(tmp_path / "index") as folder:
        remove_unfinished(tmp_path, time.time() - 30)
        assert not any(path.exists() for path in left)
        stream.write(b"whole")
        (folder / "index.faiss").write_text("whole")
    assert {path.name for path in tmp_path.rglob("*")} == {"runs", "dense.trec", "bm25.trec", "index", "index.faiss"}
