"""The page and the tables: figures that follow judgements and runs, words that mean nothing but themselves."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from made_results import SKILL, SYSTEMS, Made, make, results_of
from test_shown import HOSTILE

from largede.errors import DataError
from largede.evaluation.report import read_report, render_markdown, render_report, write_report
from largede.evaluation.report.examples import LOST, choose_examples
from largede.evaluation.report.shown import markdown
from largede.evaluation.results.collect import System, collect_results
from largede.evaluation.results.published import published_sizes

INDEXES = [
    {
        "dataset": "one",
        "kind": "hnsw",
        "recall": {"1": 0.99, "100": 0.97},
        "build_s": 1.5,
        "ms_per_query_batch_1": 0.2,
        "ms_per_query_large_batch": 0.1,
        "bytes_in_memory": 4096,
        "bytes_on_disk": 1024,
    }
]
MEASURES = ("nDCG@10", "Recall@20", "MRR@10")


def made_collections(folder: Path) -> list[Made]:
    """Two collections and a group of two, of which dense loses some."""
    worse = {"dense": 0.7, "bm25": 0.9, "fused": 1.2}
    return [
        make(folder, "one", 1, 60, measures=MEASURES),
        make(folder, "two", 2, 50, worse, measures=("MRR@10", "nDCG@10")),
        make(folder, "group/a", 3, 40, measures=MEASURES, group="group"),
        make(folder, "group/b", 4, 70, worse, measures=MEASURES, group="group"),
    ]


def permuted_judgements(made: Made) -> Made:
    rng = np.random.default_rng(11)
    pairs = [(query, id_) for query, grades in made.qrels.items() for id_ in grades]
    documents = rng.permutation([id_ for _, id_ in pairs])
    qrels: dict[str, dict[str, int]] = {query: {} for query in made.qrels}
    for (query, _), document in zip(pairs, documents, strict=True):
        qrels[query][str(document)] = 1
    return replace(made, qrels=qrels)


def permuted_runs(made: Made) -> Made:
    """Every system answers every query with the list of another query."""
    queries = list(made.queries)
    other = dict(zip(queries, [*queries[7:], *queries[:7]], strict=True))
    runs = {key: {query: run[other[query]] for query in queries} for key, run in made.runs.items()}
    return replace(made, runs=runs)


def fewer_judgements(made: Made) -> dict[str, dict[str, int]]:
    return {query: dict(list(grades.items())[:1]) for query, grades in made.qrels.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    return made_collections(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def before(made: list[Made]) -> tuple[dict[str, Any], str, str]:
    return shown(made)


def shown(made: list[Made]) -> tuple[dict[str, Any], str, str]:
    """Results, page and tables."""
    results, examples = results_of(made, indexes=INDEXES)
    return results, render_report(results, examples, {}), render_markdown(results, examples)


def page_figures(page: str, mark: str = "data-figure") -> dict[str, str]:
    return dict(re.findall(rf'{mark}="([^"]+)">([^<]+)<', page))


def json_figures(value: Any, at: str = "") -> dict[str, float]:
    """Every number of a JSON value by its place."""
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in json_figures(item, f"{at}/{key}").items()}
    if isinstance(value, list):
        return {k: v for place, item in enumerate(value) for k, v in json_figures(item, f"{at}/{place}").items()}
    return {at: value} if isinstance(value, int | float) else {}


def measured_of(results: dict[str, Any]) -> dict[str, float]:
    """What was measured: neither sizes of data nor published figures, nor what belongs to the data or the fusion."""
    kept: dict[str, Any] = {}
    for row in [*results["datasets"], *results["groups"]]:
        kept[row["name"]] = {key: row[key] for key in ("figures", "differences")}
        kept[row["name"]]["wins"] = row.get("wins")
    kept["averages"] = [average["systems"] for average in results["averages"]]
    return json_figures(kept)


def table_figures(tables: str) -> list[tuple[str, str]]:
    """Every number of every row of tables, with where it is; examples, weights, lengths and settings come last."""
    lines = tables[: tables.index("## Where dense loses")].splitlines()
    heads = {place - 1 for place, line in enumerate(lines) if line.startswith("| ---")}
    cells = []
    for row, line in enumerate(lines):
        if line.startswith("|") and "---" not in line and row not in heads:
            for column, cell in enumerate(line.split("|")[2:]):
                # Names of measures have a number in them, too.
                numbers = [] if "@" in cell else re.findall(r"[+−]?\d+(?:\.\d+)?(?:e-\d+)?", cell)
                cells += [(f"{row}/{column}/{place}", number) for place, number in enumerate(numbers)]
    return cells


@pytest.mark.parametrize("permuted", [permuted_judgements, permuted_runs])
def test_nothing_is_constant(
    made: list[Made], before: tuple[dict[str, Any], str, str], permuted: Callable[[Made], Made]
) -> None:
    results, page, tables = before
    results_after, page_after, tables_after = shown([permuted(one) for one in made])
    figures, figures_after = page_figures(page), page_figures(page_after)
    assert len(figures) > 200
    # Which collections dense loses is itself a result; all else stays in its place.
    assert figures.keys() == figures_after.keys()
    assert [at for at in figures if figures[at] == figures_after[at]] == []
    numbers, numbers_after = measured_of(results), measured_of(results_after)
    assert numbers.keys() == numbers_after.keys() and len(numbers) > 300
    assert [at for at in numbers if numbers[at] == numbers_after[at]] == []
    cells, cells_after = table_figures(tables), table_figures(tables_after)
    assert [at for at, _ in cells] == [at for at, _ in cells_after] and len(cells) > 150
    assert [one for one, other in zip(cells, cells_after, strict=True) if one == other] == []
    assert page_figures(page, "data-index") == page_figures(page_after, "data-index") != {}


def test_lengths_follow_runs_and_judgements(made: list[Made], before: tuple[dict[str, Any], str, str]) -> None:
    def of(results: dict[str, Any], *path: str) -> list[Any]:
        found = [dataset["lengths"] for dataset in results["datasets"]]
        for key in path:
            found = [one[key] for one in found]
        return found

    # The lists of other queries are the same passages again over all queries: here the systems' lists change places.
    others = [replace(one, runs=one.runs | {"dense": one.runs["bm25"], "bm25": one.runs["dense"]}) for one in made]
    swapped, plain = shown(others)[0], before[0]
    assert of(swapped, "retrieved", "dense") == of(plain, "retrieved", "bm25") != of(plain, "retrieved", "dense")
    assert of(swapped, "corpus") == of(plain, "corpus") and of(swapped, "relevant") == of(plain, "relevant")
    judged = shown([replace(one, qrels=fewer_judgements(one)) for one in made])[0]
    assert of(judged, "relevant") != of(plain, "relevant") and of(judged, "retrieved") == of(plain, "retrieved")


def test_the_page_shows_the_figures_of_the_results(before: tuple[dict[str, Any], str, str]) -> None:
    results, page, tables = before
    figures = page_figures(page)
    for row in [*results["datasets"], *results["groups"]]:
        for system in ("dense", "bm25", "fused"):
            mean = row["figures"][system][row["measures"][0]]["mean"]
            assert figures[f"{row['name']}/{system}/{row['measures'][0]}/mean"] == f"{mean:.4f}"
            assert f"{mean:.4f}" in tables
    average = results["averages"][0]
    assert average["rows"] == ["one", "group"] and average["left_out"] == ["two"]
    assert figures["average of 2/fused/nDCG@10/mean"] == f"{average['systems']['fused']:.4f}"


class Structure(HTMLParser):
    """Tags and attribute names in their order, and whether all were closed in turn."""

    VOID = frozenset({"meta", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, ...]] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, *(name for name, _ in attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, *(name for name, _ in attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def hostile_and_plain(folder: Path) -> list[tuple[dict[str, Any], str, str]]:
    """The same figures under hostile and under harmless names."""
    found = []
    for place, words in enumerate((HOSTILE, "harmless words")):
        (folder / str(place)).mkdir()
        systems = (System("dense", words), System("bm25", "BM25", 10**8), System(words + "2", words, 10**9))
        skill = {"dense": 0.8, "bm25": 0.9, words + "2": 1.0}
        made = [
            make(folder / str(place), f"{words}{i}", i, 20, skill, title=words.replace("{", "") + "{}", group=group)
            for i, group in enumerate((None, None, words, words))
        ]
        made = [replace(one, queries=dict.fromkeys(one.queries, words), split=words) for one in made]
        results, examples = results_of(made, systems, words, indexes=[INDEXES[0] | {"dataset": words, "kind": words}])
        for dataset in [*results["datasets"], *results["groups"]]:
            dataset["note"] = words
        results |= {"settings": {words: {words: words}, "model": words}, "about": {words: words}}
        curves = {words: [(0.0, 1.0), (1.0, 2.0)]}
        found.append((results, render_report(results, examples, curves), render_markdown(results, examples)))
    return found


def test_hostile_names_and_texts_change_no_markup(tmp_path: Path) -> None:
    (_, page, tables), (_, plain_page, plain_tables) = hostile_and_plain(tmp_path)
    # Pictures leave room for names, and thin their ticks: they are looked at by themselves.
    without = [re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL) for text in (page, plain_page)]
    assert Structure(without[0]).found == Structure(without[1]).found
    tags = {tag for tag, *_ in Structure(page).found}
    assert not tags & {"script", "iframe", "img", "link", "object", "embed", "a", "form"}
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) > 20
    drawn = {element.tag for picture in pictures for element in ElementTree.fromstring(picture).iter()}
    assert drawn <= {"svg", "title", "line", "text", "tspan", "path", "rect", "circle"}
    bare = [re.sub(r"\\.", "", line) for line in tables.splitlines()]
    assert [line.count("|") for line in bare] == [line.count("|") for line in plain_tables.splitlines()]
    assert not any(re.search(r"[<`\[]", line) for line in bare)
    for text in (page, tables):
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0e-\x1f\ud800-\udfff]", text)
        text.encode()


def test_the_page_fetches_nothing_and_runs_nothing(before: tuple[dict[str, Any], str, str]) -> None:
    assert not re.search(r"(src|href)\s*=|url\(|@import|<script|<link|\son\w+=|javascript:", before[1])


def test_the_page_is_made_again_from_its_files_alone(made: list[Made], tmp_path: Path) -> None:
    results, examples = results_of(made)
    curves = {"train/loss": [(0.0, 2.0), (1.0, 1.0)]}
    write_report(tmp_path, results, examples, curves)
    again = read_report(tmp_path)
    assert again == (json.loads(json.dumps(results)), examples, curves)
    assert render_report(*again) == (tmp_path / "report.html").read_text()
    (tmp_path / "page.json").unlink()
    results, examples, curves = read_report(tmp_path)
    assert examples == [] and curves == {}
    assert "example search" not in render_report(results, examples, curves)


def test_damaged_files_are_said(made: list[Made], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no results.json"):
        read_report(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        read_report(tmp_path)
    (tmp_path / "results.json").write_text('{"title": "old", "datasets": []}')
    with pytest.raises(DataError, match="lacks about, averages"):
        read_report(tmp_path)
    write_report(tmp_path, *results_of(made[:1]), {})
    (tmp_path / "page.json").write_text(json.dumps({"examples": [{"query": "what"}]}))
    with pytest.raises(DataError, match="examples that cannot be read"):
        read_report(tmp_path)


def test_published_columns_are_marked_and_apart(tmp_path: Path) -> None:
    made = [make(tmp_path, name, place, 20) for place, name in enumerate(("nfcorpus", "scifact", "our-own"))]

    def page_of(sizes: dict[str, int]) -> tuple[dict[str, Any], str, str]:
        measured = [one.measured(documents=sizes.get(one.name, 5)) for one in made]
        for one in measured:
            # As many judged queries as were published, all with the value of the first.
            queries = published_sizes()[one.name].queries if one.name in published_sizes() else 20
            for values in one.values.values():
                for measure, found in values.items():
                    values[measure] = {f"q{i}": found.get(f"q{i % 20}", 0.0) for i in range(queries)}
        results = collect_results("t", SYSTEMS, measured, 0) | {"settings": {}, "about": {}}
        return results, render_report(results, [], {}), render_markdown(results)

    right, page, tables = page_of({name: size.documents for name, size in published_sizes().items()})
    assert page.count("data-published>0.342<") == 1  # gtr-xxl on nfcorpus, in table 3
    assert "gtr-xxl (published)" in tables and "0.3218" in tables and "table 3" in tables
    assert [len(average["rows"]) for average in right["averages"]] == [2, 3]
    assert right["averages"][0]["published"]["gtr-xxl"] == pytest.approx((0.342 + 0.662) / 2)
    assert right["averages"][1]["published"] == {}
    difference = page_figures(page)["nfcorpus/bm25-Anserini flat/nDCG@10/mean"]
    ours = right["datasets"][0]["figures"]["bm25"]["nDCG@10"]["mean"]
    assert difference == f"{ours - 0.3218:+.4f}".replace("-", "−")
    tuned = right | {"settings": {"bm25": {"bm25": {"k1": 1.2, "b": 0.7}}}}
    assert "bm25-Anserini flat" not in render_report(tuned, [], {}) and "0.3218" in render_report(tuned, [], {})
    one = right | {"datasets": [d for d in right["datasets"] if d["name"] != "scifact"]}
    assert "Average nDCG@10 of 2 collections." in page and "nDCG@10 of nfcorpus." in render_report(one, [], {})
    assert page.count("gtr-xxl, published") == render_report(one, [], {}).count("gtr-xxl, published") > 0
    wrong, page, tables = page_of({})
    assert "data-published" not in page and "(published)" not in tables
    assert "nothing published is set beside it" in page and wrong["averages"][0]["published"] == {}


def test_examples_that_dense_lost_are_its_worst(made: list[Made]) -> None:
    results, examples = results_of(made)
    lost = [example for example in examples if example.why == LOST]
    assert len(lost) == 10 and len(examples) == 20
    for dataset in results["datasets"]:
        measure = dataset["measures"][0]
        dense, bm25 = (dataset["per_query"][key][measure] for key in ("dense", "bm25"))
        worst = min(dense[query] - bm25[query] for query in dense)
        shown = [e.values["dense"] - e.values["bm25"] for e in lost if e.dataset == dataset["name"]]
        assert shown[0] == pytest.approx(worst) and shown == sorted(shown)
    section = render_markdown(results, examples).partition("## Where dense loses")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 10 and all(markdown(e.query) in row for e, row in zip(lost, rows, strict=True))


def test_one_measure_of_its_own_and_no_bm25(tmp_path: Path) -> None:
    one = make(tmp_path, "open", 3, 20, {"dense": 1.0}, measures=("P@1", "MRR@100"))
    results = collect_results("t", (System("dense", "dense"),), [one.measured(weight=None)], 0)
    results |= {"settings": {}, "about": {}}
    examples = choose_examples(results, [one.searched()], 0)
    page = render_report(results, examples, {})
    assert page_figures(page).keys() == {
        f"open/dense/{measure}/{end}" for measure in ("P@1", "MRR@100") for end in ("mean", "low", "high")
    }
    assert "nDCG" not in page and "BM25" not in page
    Structure(page)


def test_many_collections_stay_small_enough_to_send(tmp_path: Path) -> None:
    made = [make(tmp_path, f"c{i}", i, 30, SKILL) for i in range(6)]
    results, examples = results_of(made)
    assert len(render_report(results, examples, {})) < 100_000 * len(made)
