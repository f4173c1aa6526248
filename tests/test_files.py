import os
from pathlib import Path

import pytest

from largede.files import remove_folder


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
