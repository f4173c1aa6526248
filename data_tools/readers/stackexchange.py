"""StackExchange: Posts.xml of a site into pairs of question and answer.

As published, https://archive.org/details/stackexchange: one .7z for each site, named after it, with Posts.xml among
other files; the largest site as stackoverflow.com-Posts.7z. Unpacked and recompressed files do as well. The site is
the name of the file, or of its folder where the file is called Posts.xml.

A quotation (`blockquote`) in an answer that repeats eight words in a row of its question is left out, because it would
give the question away; other quotations stay. In three dumps (ai, beer and coffee; 2,648
answers with 535 quotations) 56 quotations in 32 answers were such.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from data_tools.dropped import Dropped
from data_tools.format import Format, Record, option, plain_files
from data_tools.readers.html import MOST_HTML_CHARACTERS, html_to_text
from data_tools.readers.repeats import Asked
from data_tools.sources import COMPRESSED, opened
from data_tools.xml_rows import xml_rows
from largede.errors import DataError
from largede.streams.pair import Pair

_QUESTION, _ANSWER = "1", "2"

MOST_OTHER_POSITIVES = 100
"""Some threads have a thousand answers; with --answers all their ids would outweigh the texts."""


@dataclass(frozen=True)
class StackExchangeOptions:
    query: str = option("title", "what asks: the question's title, or title and body", ("title", "title-body"))
    answers: str = option(
        "accepted-or-best",
        "which answers make pairs: the accepted one, that with most votes, the accepted or else the best one, or all",
        ("accepted", "best", "accepted-or-best", "all"),
    )
    min_question_score: int | None = option(None, "leave out questions with fewer votes", metavar="VOTES")
    min_answer_score: int = option(0, "leave out answers with fewer votes", metavar="VOTES")


class Question(NamedTuple):
    id: str
    score: int
    body: str
    title: str
    accepted_id: str


class Answer(NamedTuple):
    id: str
    score: int
    body: str
    question_id: str


def posts(path: Path, options: StackExchangeOptions, dropped: Dropped) -> Iterator[Record]:
    """Questions and answers by site and question id. What decides and what is long is left to `pairs_of_thread`."""
    site = site_of(path)
    with opened(path, member="Posts.xml") as stream:
        for row in xml_rows(stream, root="posts", where=path):
            post = _post(row, f"{site}/{row.get('Id')}", dropped)
            if post is not None:
                thread = post.id if isinstance(post, Question) else post.question_id
                yield f"{site}/{thread}".encode(), json.dumps(post, ensure_ascii=False).encode()


def _post(row: dict[str, str], name: str, dropped: Dropped) -> Question | Answer | None:
    kind = row.get("PostTypeId")
    if kind not in (_QUESTION, _ANSWER):
        dropped.note("neither question nor answer", f"{name}, type {kind}")
        return None
    try:
        score, body = int(row["Score"]), row["Body"]
        if kind == _QUESTION:
            return Question(_number(row["Id"]), score, body, row["Title"], row.get("AcceptedAnswerId", ""))
        return Answer(_number(row["Id"]), score, body, _number(row["ParentId"]))
    except (KeyError, ValueError) as error:
        dropped.note("post without id, score, body, title or question", f"{name}: {error}")
        return None


def _number(id_: str) -> str:
    if not id_.isdecimal():
        raise ValueError(f"{id_[:40]!r} is no id")
    return id_


def pairs_of_thread(
    key: bytes, records: list[bytes], options: StackExchangeOptions, dropped: Dropped
) -> Iterator[Pair]:
    """The pairs of one question. Further answers that readers found good become `other_positives`."""
    thread = key.decode()
    kinds: dict[int, Any] = {len(Question._fields): Question, len(Answer._fields): Answer}
    found: dict[str, Question | Answer] = {}
    for post in (kinds[len(row)](*row) for row in map(json.loads, records)):
        if found.setdefault(post.id, post) is not post:
            dropped.note("post given twice", f"{thread}, post {post.id}")
    questions = [post for post in found.values() if isinstance(post, Question)]
    answers = [post for post in found.values() if isinstance(post, Answer)]
    if not questions:
        dropped.update({"answer without its question": len(answers)})
        dropped.examples.setdefault("answer without its question", f"{thread}, answer {answers[0].id}")
        return
    question = questions[0]
    query = _query(question, thread, options, dropped)
    chosen = _chosen(question, answers, options, dropped, thread) if query else []
    site = thread.rpartition("/")[0]
    asked = _asked(question)
    for answer in chosen:
        positive = _text(answer.body, f"{site}/{answer.id}", dropped, asked)
        if positive:
            others = [other for other in _good(question, answers) if other.id != answer.id]
            yield Pair(
                query=query,
                positive=positive,
                query_id=thread,
                positive_id=f"{site}/{answer.id}",
                group=thread,
                other_positives=tuple(f"{site}/{other.id}" for other in others[:MOST_OTHER_POSITIVES]),
                source=site,
                score=answer.score,
            )


def _query(question: Question, thread: str, options: StackExchangeOptions, dropped: Dropped) -> str:
    """Empty when the question is dropped."""
    if options.min_question_score is not None and question.score < options.min_question_score:
        dropped.note("question below --min-question-score", f"{thread}, {question.score} votes")
        return ""
    title = " ".join(question.title.split())
    if not title:
        dropped.note("question without title", thread)
        return ""
    if options.query == "title" or len(question.body) > MOST_HTML_CHARACTERS:
        return title
    return f"{title}\n{html_to_text(question.body)}".strip()


def _chosen(
    question: Question, answers: list[Answer], options: StackExchangeOptions, dropped: Dropped, thread: str
) -> list[Answer]:
    """The answers that make pairs, best first. A question without one is counted."""
    if not answers:
        dropped.note("question without an answer", thread)
        return []
    allowed = [answer for answer in answers if answer.score >= options.min_answer_score]
    best = sorted(allowed, key=lambda answer: (-answer.score, answer.id != question.accepted_id, int(answer.id)))
    accepted = [answer for answer in allowed if answer.id == question.accepted_id]
    chosen = {
        "accepted": accepted[:1],
        "best": best[:1],
        "accepted-or-best": (accepted or best)[:1],
        "all": best,
    }[options.answers]
    if not allowed:
        dropped.note("no answer reaches --min-answer-score", f"{thread}, answer {answers[0].id}")
    elif not chosen:
        dropped.note("question without an accepted answer", thread)
    return chosen


def _good(question: Question, answers: list[Answer]) -> list[Answer]:
    """The answers that must not count as wrong: those accepted or voted up, best first."""
    good = [answer for answer in answers if answer.score > 0 or answer.id == question.accepted_id]
    return sorted(good, key=lambda answer: (-answer.score, int(answer.id)))


def _asked(question: Question) -> Callable[[str], bool]:
    """Whether a text repeats the question. Most answers quote nothing, so the question is looked at when one does."""

    @cache
    def asked() -> Asked:
        body = question.body if len(question.body) <= MOST_HTML_CHARACTERS else ""
        return Asked(f"{question.title}\n{html_to_text(body)}")

    return lambda text: asked()(text)


def _text(html: str, name: str, dropped: Dropped, asked: Callable[[str], bool]) -> str:
    """Of an answer, without what it quotes of its question."""
    if len(html) > MOST_HTML_CHARACTERS:
        dropped.note(f"post of more than {MOST_HTML_CHARACTERS:,} characters", name)
        return ""
    text = html_to_text(html, asked)
    if not text:
        dropped.note("post without text", f"{name}: {html}")
    return text


def site_of(path: Path) -> str:
    """beer.stackexchange.com.7z, stackoverflow.com-Posts.7z, ai.xml.zst, coffee/Posts.xml: the name of the site."""
    name = path.stem if path.suffix in COMPRESSED else path.name
    name = name.removesuffix(".xml")
    return path.resolve().parent.name if name == "Posts" else name.removesuffix("-Posts")


def _files(inputs: Sequence[Path], options: StackExchangeOptions) -> list[Path]:
    """One file for each site: ids are numbers that begin anew in each."""
    sites: dict[str, Path] = {}
    for path in plain_files(inputs, options):
        site = site_of(path)
        if site in sites:
            raise DataError(
                f"{sites[site]} and {path} are both of the site {site}",
                expected="one Posts.xml for each site, named after it",
                mend="remove one, or rename it if it is of another site",
            )
        sites[site] = path
    return list(inputs)


FORMAT = Format(
    name="stackexchange",
    summary="StackExchange dumps: question to its accepted or best answer.",
    example="largede-data pairs stackexchange beer.stackexchange.com.7z ai.stackexchange.com.7z --out forums",
    options=StackExchangeOptions,
    read=posts,
    groupings=(pairs_of_thread,),
    files=_files,
    inputs="the .7z of a site, or its Posts.xml, plain or compressed",
)
