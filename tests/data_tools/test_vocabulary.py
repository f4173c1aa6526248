"""The vocabulary is T5's layout, loads as transformers expects it, and is the same every time."""

import json
import random
from pathlib import Path

import pytest
import sentencepiece
from transformers import AutoTokenizer

from data_tools.vocabulary import EOS, PAD, UNK, _train, _write_folder, check_vocabulary, write_vocabulary
from largede.errors import DataError

WORDS = [a + b + c for a in ("mat", "vec", "ten") for b in ("ri", "to", "so") for c in ("ces", "red", "ned", "list")]


def write_pairs(path: Path, count: int = 400) -> Path:
    rng = random.Random(0)
    with path.open("w") as file:
        for _ in range(count):
            query, positive = (" ".join(rng.choices(WORDS, k=k)).capitalize() for k in (5, 20))
            file.write(json.dumps({"query": query, "positive": f"numpy.f(x): {positive}."}) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vocabulary")
    write_vocabulary([write_pairs(root / "pairs.jsonl")], root / "out", 60)
    return root / "out"


def test_transformers_loads_it_as_a_t5_vocabulary(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer).__name__ == "T5Tokenizer"
    assert len(tokenizer) == 60
    assert tokenizer.convert_tokens_to_ids(["<pad>", "</s>", "<unk>"]) == [PAD, EOS, UNK] == [0, 1, 2]
    ids = tokenizer("Matrices vectored  Tensored.")["input_ids"]
    assert ids[-1] == EOS
    assert UNK not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "matrices vectored tensored."
    padded = tokenizer(["Matrices", "Matrices vectored tensored"], padding=True)
    assert padded["input_ids"][0][-1] == PAD


def test_the_same_pairs_give_the_same_bytes_in_any_order(folder: Path, tmp_path: Path) -> None:
    lines = (folder.parent / "pairs.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "a.jsonl").write_text("".join(lines[200:]))
    (tmp_path / "b.jsonl").write_text("".join(lines[:200]))
    write_vocabulary([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], tmp_path / "out", 60)
    for name in ("spiece.model", "tokenizer_config.json", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()


def test_a_folder_that_loads_wrongly_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes((folder / "spiece.model").read_bytes())
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    # Without `extra_ids: 0` transformers appends its hundred sentinels.
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    with pytest.raises(DataError, match=r"\(160, 0, 1, 2\), not \(60, 0, 1, 2\)"):
        check_vocabulary(tmp_path, 60, ["matrices"])
    with pytest.raises(DataError, match="does not know"):
        check_vocabulary(folder, 60, ["ﬀ漢字漢字漢字 漢字 ☃ ☃ ☃"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"query": "a", "positive": "b"}\n{"query": "a"}\n', "pairs.jsonl line 2 has no positive"),
        ('{"query": "a", "positive": 7}\n', "pairs.jsonl line 1"),
        ("{broken\n", "pairs.jsonl line 1 is not JSON"),
        ('{"query": "a b", "positive": "b"}\n', "2 texts give no vocabulary of 60 pieces"),
        ("", "0 texts give no vocabulary of 60 pieces"),
    ],
)
def test_unusable_pairs_are_said_and_nothing_is_left(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "pairs.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        write_vocabulary([tmp_path / "pairs.jsonl"], tmp_path / "new" / "out", 60)
    assert [p.name for p in tmp_path.iterdir()] == ["pairs.jsonl"]


def test_texts_with_two_cuts_of_equal_score_are_no_fault(tmp_path: Path) -> None:
    # "bbbb" is "bbb" and "b", or "b" and "bbb": transformers and SentencePiece choose differently.
    chance = random.Random(2)
    texts = [
        " ".join(
            "".join(chance.choice("ab") * chance.randrange(1, 5) for _ in range(chance.randrange(1, 3)))
            for _ in range(6)
        )
        for _ in range(300)
    ]
    _write_folder(tmp_path, _train(texts, 16), 16)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    cuts = zip(tokenizer(texts)["input_ids"], processor.encode(texts), strict=True)
    assert any(ids[:-1] != pieces for ids, pieces in cuts)
    check_vocabulary(tmp_path, 16, texts)


def test_a_folder_of_pair_files_stands_for_its_files(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    for number in range(2):
        lines = [f'{{"query": "which state is {n + number}?", "positive": "the state {n * 31}"}}\n' for n in range(60)]
        (tmp_path / "pairs" / f"{number}.jsonl").write_text("".join(lines))
    write_vocabulary([tmp_path / "pairs"], tmp_path / "of_folder", 40)
    write_vocabulary(sorted((tmp_path / "pairs").iterdir()), tmp_path / "of_files", 40)
    assert (tmp_path / "of_folder" / "spiece.model").read_bytes() == (
        tmp_path / "of_files" / "spiece.model"
    ).read_bytes()


def test_a_missing_pair_file_and_a_folder_that_holds_something(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.jsonl: No such file"):
        write_vocabulary([tmp_path / "none.jsonl"], tmp_path / "out", 60)
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(DataError, match="already exists"):
        write_vocabulary([], tmp_path, 60)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
