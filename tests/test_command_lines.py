"""The two commands: what they import, and how they refuse."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from made_world import MadeWorld

from data_tools.cli import main as data_tools_main
from data_tools.readers import FORMATS

HEAVY = "torch transformers deepspeed faiss pyserini webdataset matplotlib accelerate"


@pytest.mark.parametrize("module", ["largede.cli", "data_tools.cli"])
def test_help_imports_nothing_heavy(module: str) -> None:
    """Asked of sys.modules rather than the clock, which is noisy."""
    code = f"""
import importlib, sys
main = importlib.import_module({module!r}).main
try:
    main(["--help"])
except SystemExit:
    pass
print("HEAVY:", [name for name in {HEAVY!r}.split() if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "HEAVY: []" in done.stdout, done.stdout + done.stderr
    assert "VERB" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "no-such-recipe"], "no recipe 'no-such-recipe'"),
        (["train", "quickstart", "--batch.querys", "3"], "did you mean batch.queries"),
        (["train"], "no recipe"),
        (["train", "mini", "--data.allow_pipe", "true"], "data.allow_pipe"),
        (["train", "mini", "--run.out", "s3://me:hunter2@host/x"], "run.out is s3://[hidden]@host/x"),
        (["train", "mini", "--model.tokenizer", "hf://x?token=hunter2"], "model.tokenizer is hf://x?[hidden]"),
        (["export", "nowhere", "out"], "is no checkpoint"),
        (["plan", "gtr-xxl-pretrain", "--gpus", "0"], "--gpus 0"),
        (["plan", "gtr-xxl-pretrain", "--gpus", "10", "--nodes", "4"], "10 GPUs on 4 nodes"),
        (["plan", "gtr-xxl-pretrain", "--gpus", "8", "--gpu-gib", "-1"], "--gpu-gib -1"),
        (["plan", "gtr-xxl-pretrain", "--gpus", "4096"], "batch.queries 2048 on 4096 ranks"),
        (["plan", "gtr-xxl-pretrain", "--gpus", "8", "--batch.chunk_tokens", "100"], "less than one sequence"),
        (["quickstart", "--minutes", "0"], "--minutes 0.0"),
        (["evaluate", "--model", "nowhere", "--data", "nowhere", "--out", "out"], "no model folder"),
    ],
)
def test_bad_input_is_one_message_and_status_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from largede.cli import main

    monkeypatch.chdir(str(tmp_path))
    assert main(words) == 2
    message = capsys.readouterr().err
    assert said in message and "to mend:" in message and "Traceback" not in message


def test_a_plan_says_whether_it_fits_by_its_status(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from largede.cli import main

    words = ["plan", "gtr-xxl-finetune", "--gpus", "8"]
    assert main([*words, "--json", str(tmp_path / "plan.json")]) == 0
    said = capsys.readouterr().out
    assert "It fits" in said and "Memory of one GPU" in said and "Time of one step" in said
    figures = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert figures["fits"] and figures["days"] > 0 and figures["memory_bytes"]["optimizer"] > 0
    with pytest.raises(SystemExit) as left:
        main([*words, "--gpu-gib", "8"])
    assert left.value.code == 3
    said = capsys.readouterr().out
    assert "It does not fit" in said and "fits with --" in said


def test_a_plan_imports_nothing_heavy() -> None:
    code = f"""
import sys
from largede.cli import main
main(["plan", "gtr-base-pretrain", "--gpus", "8"])
print("HEAVY:", [name for name in {HEAVY!r}.split() if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "HEAVY: []" in done.stdout, done.stdout + done.stderr


def test_a_file_where_a_folder_is_wanted_is_one_message(
    world: MadeWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from data_tools.cli import main

    (tmp_path / "file").write_text("in the way")
    assert main(["shard", str(world.pairs), "--out", str(tmp_path / "file" / "shards")]) == 2
    message = capsys.readouterr().err
    assert str(tmp_path / "file") in message and "to mend:" in message
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("body", "status"),
    [("return 0", 0), ("return 2", 2), ("sys.exit()", 0), ("sys.exit(75)", 75), ("sys.exit('no')", 1), ("1 / 0", 1)],
)
def test_the_status_survives_what_the_interpreter_meets_on_its_way_out(body: str, status: int) -> None:
    """As gloo's threads may abort it there. What was printed arrives all the same."""
    code = f"""
import atexit, os, sys
from largede.verbs import enter
def main():
    {"" if body == "1 / 0" else "atexit.register(os.abort)"}
    print("said")
    {body}
enter(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, "said\n"), done.stderr
    assert ("no" in done.stderr) == ("no" in body) and ("ZeroDivisionError" in done.stderr) == ("1 / 0" in body)


@pytest.mark.parametrize("value", ["0", "-3", "many", "1.5"])
def test_a_count_is_a_whole_number_above_zero(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    from largede.cli import main

    with pytest.raises(SystemExit) as left:
        main(["encode", "--model", "m", "--corpus", "c", "--out", "o", "--max-tokens", value])
    assert left.value.code == 2
    assert "no whole number above zero" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["nan", "inf", "1e999", "much"])
@pytest.mark.parametrize(
    "words",
    [
        ["filter", "pairs", "--out", "out", "--min-score"],
        ["dedup", "pairs", "--out", "out", "--query-similarity"],
        ["shard", "pairs", "--out", "out", "--memory-gib"],
        ["shard", "pairs", "--out", "out", "--query-fraction"],
        ["pairs", "msmarco", "pairs", "--out", "out", "--ce-score-margin"],
    ],
)
def test_a_measure_is_a_finite_number(words: list[str], value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        data_tools_main([*words, value])
    assert f"argument {words[-1]}: {value!r} is no finite number" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["evaluate --model m --data d --out", "report --out o", "mine --data"])
def test_an_empty_path_is_not_the_current_folder(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    from largede.cli import main

    with pytest.raises(SystemExit) as end:
        main([*words.split(), ""])
    assert end.value.code == 2 and "an empty path; write . for the current folder" in capsys.readouterr().err


def test_a_title_has_words(capsys: pytest.CaptureFixture[str]) -> None:
    from largede.cli import main

    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "--model", "m", "--data", "d", "--out", "o", "--title", " "])
    assert "argument --title: empty" in capsys.readouterr().err


def test_every_verb_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    from data_tools.cli import VERBS as data_verbs
    from largede.cli import VERBS

    assert all(verb.example.startswith(("largede", "deepspeed")) for verb in (*VERBS, *data_verbs))


@pytest.mark.parametrize("flag", [[], ["--allow-pipe"]])
def test_a_recipe_may_name_a_command_but_only_a_flag_lets_it_run(
    world: MadeWorld, tmp_path: Path, flag: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    from largede.cli import main
    from largede.training import trainer

    monkeypatch.setattr(trainer, "join_ranks", lambda *given: None)
    monkeypatch.setattr(trainer, "leave_ranks", lambda all_ranks_leave: None)
    monkeypatch.setattr(trainer, "all_or_none", lambda work: work())
    command = f"pipe:echo {{name}} >> {tmp_path}/ran; cat {world.shards}/{{name}}"
    recipe = tmp_path / "recipe.yaml"
    # More lanes than blocks: where the command is run, the next thing that is refused.
    recipe.write_text(
        f"model: {{backbone: mini, tokenizer: '{world.vocabulary}'}}\n"
        f"data: {{lanes: 2048, shards: '{command}'}}\nbatch: {{queries: 2048}}\n"
    )
    assert main(["train", str(recipe), *flag]) == 2
    said = "2048 lanes over 24 blocks" if flag else "would run a shell command"
    assert said in capsys.readouterr().err
    assert (tmp_path / "ran").exists() == bool(flag)


@pytest.mark.parametrize("format", [*(format.name for format in FORMATS), "python-docs"])
def test_every_format_explains_itself(format: str, capsys: pytest.CaptureFixture[str]) -> None:
    from data_tools.cli import main

    with pytest.raises(SystemExit) as left:
        main(["pairs", format, "--help"])
    said = capsys.readouterr().out
    assert left.value.code == 0 and f"\n  largede-data pairs {format} " in said and "--out DIR" in said


def test_a_dump_becomes_shards_in_two_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from data_tools.cli import main

    rows = "".join(
        f'<row Id="{i}" PostTypeId="1" Score="1" Title="question {i}" Body="b"/>'
        f'<row Id="{i}0000" PostTypeId="2" ParentId="{i}" Score="{i % 3}" Body="&lt;p&gt;answer {i}&lt;/p&gt;"/>'
        for i in range(1, 61)
    )
    (tmp_path / "tea.xml").write_text(f"<posts>{rows}</posts>")
    pairs, shards = str(tmp_path / "pairs"), str(tmp_path / "shards")
    words = ["--workers", "1", "--part-pairs", "7", "--min-answer-score", "1", "--query", "title-body"]
    assert main(["pairs", "stackexchange", str(tmp_path / "tea.xml"), "--out", pairs, *words]) == 0
    said = capsys.readouterr().out
    assert "40 pairs in 6 parts" in said and "dropped 20: no answer reaches --min-answer-score, such as tea/" in said
    assert main(["shard", pairs, "--out", shards]) == 0
    assert "40 pairs in 1 shard," in capsys.readouterr().out
    assert main(["shard", str(tmp_path), "--out", str(tmp_path / "no")]) == 2
    assert "holds no pairs" in capsys.readouterr().err
