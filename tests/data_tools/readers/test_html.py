import html.parser
import time
from pathlib import Path

import pytest
from beir_folder import shared_data

from data_tools.readers.html import MOST_HTML_CHARACTERS, html_to_text
from data_tools.sources import opened
from data_tools.xml_rows import xml_rows


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("no markup  at\nall", "no markup at\nall"),
        ("<p>one\ntwo</p><p>three</p>four", "one two\nthree\nfour"),
        ("<ul><li>a</li><li>b <b>c</b>d</li></ul>", "a\nb cd"),
        ("<pre><code>if x:\n    y &lt; z\n</code></pre>", "if x:\ny < z"),
        ('see <a href="http://x.org/?a=1">the <i>manual</i></a>.', "see the manual."),
        ("<script>alert(1)</script>a<style>p{}</style><!-- no --> b<img alt='c' src='d'>", "a b"),
        ("&quot;5 &lt; 6&quot; &amp;amp; &eacute;&nbsp;&#128512;", '"5 < 6" &amp; é 😀'),
        ("<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>", "a b\n1 2"),
        ("one<br>two<br/>three<hr>four", "one\ntwo\nthree\nfour"),
        ("2<sup>10</sup> = 1024", "210 = 1024"),
        ("<p>never <b>closed <i>at all", "never closed at all"),
        ("<p></p> <div> </div>", ""),
        ("a <blockquote><p>b</p></blockquote> c", "a\nb\nc"),
        ("<svg><text>x</text></svg><iframe>y</iframe>z", "z"),
    ],
)
def test_html_becomes_the_text_one_reads(source: str, text: str) -> None:
    assert html_to_text(source) == text


class _Words(html.parser.HTMLParser):
    """The plain twin: the standard library's tokenizer, all text but that of scripts."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""

    def handle_data(self, data: str) -> None:
        self.text += data


def letters(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("name", ["ai", "beer", "coffee"])
def test_of_real_posts_no_letter_is_lost_or_added(name: str) -> None:
    path = shared_data("dumps", f"{name}.xml")
    with opened(path) as stream:
        bodies = [row["Body"] for row in xml_rows(stream, "posts", path)]
    assert len(bodies) > 500
    for body in bodies:
        twin = _Words()
        twin.feed(body)
        twin.close()
        assert letters(html_to_text(body)) == letters(twin.text), body


def test_the_most_hostile_nesting_that_is_let_in_takes_seconds_at_most() -> None:
    started = time.process_time()
    assert html_to_text("<p>" + "<div>" * (MOST_HTML_CHARACTERS // 5) + "deep") == "deep"
    assert time.process_time() - started < 20


def test_a_page_cut_anywhere_is_read(tmp_path: Path) -> None:
    page = "<p>a &amp; <a href='x'>b</a> <!-- c --><pre>d</pre>"
    for end in range(len(page)):
        html_to_text(page[:end])
