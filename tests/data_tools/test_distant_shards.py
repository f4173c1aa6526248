"""`verify` and `inspect` of shards that do not lie in a local folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from range_server import Served, serving
from shard_sets import flip_byte, make_shards

from data_tools.cli import main
from largede.streams.index import ShardIndex
from largede.streams.places import patience


@pytest.fixture
def index(tmp_path: Path) -> ShardIndex:
    return make_shards(tmp_path)


@pytest.fixture
def server(index: ShardIndex) -> Iterator[Served]:
    with serving(index.folder) as served:
        yield served


def test_sound_shards(index: ShardIndex, server: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", server.address]) == 0
    assert main(["verify", server.address, "--quick"]) == 0
    assert main(["verify", f"pipe:cat {index.folder}/{{name}}", "--allow-pipe"]) == 0
    assert capsys.readouterr().out.count("200 pairs, 25 blocks, 5 shards") == 3


def test_damage_is_found_as_in_a_folder(index: ShardIndex, server: Served, capsys: pytest.CaptureFixture[str]) -> None:
    flip_byte(index, 0, 3)
    (index.folder / "shard-00003.tar").unlink()
    said = []
    for place in (str(index.folder), server.address):
        assert main(["verify", place]) == 2
        said.append(capsys.readouterr().err.replace(place, "PLACE"))
    assert "shard-00003.tar is missing" in said[0]
    assert said[0] == said[1]
    assert main(["verify", server.address, "--quick"]) == 2


def test_a_report_is_that_of_the_folder(index: ShardIndex, server: Served, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for place in (str(index.folder), server.address):
        assert main(["inspect", place]) == 0
        said.append(capsys.readouterr().out.replace(place, "PLACE"))
    assert said[0] == said[1]


@pytest.mark.parametrize("verb", ["verify", "inspect"])
def test_a_command_needs_the_flag(tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, f"pipe:touch {tmp_path}/ran; cat {{name}}"]) == 2
    assert "--allow-pipe" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("quick", [False, True])
def test_a_place_that_is_away_is_not_damaged(
    index: ShardIndex, server: Served, quick: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.001)
    address = server.begin_anew(index.folder)
    server.faults.fail_every = 1
    assert main(["verify", address, "--workers", "1", *["--quick"] * quick]) == 2
    said = capsys.readouterr().err
    assert "status 503" in said and "check the" in said
    assert "is damaged" not in said
    assert quick or server.asked <= 3 * patience.ATTEMPTS < len(index.shards) * patience.ATTEMPTS


def test_a_command_cannot_tell_sizes(index: ShardIndex, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", f"pipe:cat {index.folder}/{{name}}", "--allow-pipe", "--quick"]) == 2
    assert "leave out --quick" in capsys.readouterr().err
