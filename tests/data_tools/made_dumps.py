"""Made dumps of any size, to measure readers on: `python tests/data_tools/made_dumps.py stackexchange 300 FOLDER`.

The texts are words, some far more frequent than others, with the markup and lengths of real posts, so that rates and compression
are near those of real dumps; the second number is megabytes before compression. Written are, for stackexchange,
made.xml, made.xml.zst and made.7z; for reddit, RS.zst and RC.zst with the long window of the published files.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import py7zr
import zstandard


class Words:
    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        letters = np.array(list("etaoinshrdlu"))
        self._words = ["".join(self._rng.choice(letters, int(n))) for n in self._rng.integers(2, 10, 30_000)]

    def sentence(self, words: int) -> str:
        picks = len(self._words) * self._rng.random(max(3, int(self._rng.exponential(words)))) ** 4
        return " ".join(self._words[int(i)] for i in picks).capitalize() + "."


def posts(words: Words) -> Iterator[str]:
    """Threads of a question and two answers, rows as in Posts.xml."""
    yield '<?xml version="1.0" encoding="utf-8"?>\n<posts>\n'
    id_ = 0
    while True:
        id_ += 3
        title = f'AcceptedAnswerId="{id_ + 1}" Title={quoteattr(words.sentence(9))} Tags="&lt;tea&gt;" AnswerCount="2"'
        yield post(id_, 1, words, title)
        yield post(id_ + 1, 2, words, f'ParentId="{id_}"')
        yield post(id_ + 2, 2, words, f'ParentId="{id_}"')


def post(id_: int, kind: int, words: Words, more: str) -> str:
    body = f'<p>{words.sentence(60)} <a href="http://made.org/{id_}" rel="nofollow">{words.sentence(4)}</a></p>\n\n'
    body += f"<ul>\n<li>{words.sentence(15)}</li>\n<li><strong>{words.sentence(15)}</strong></li>\n</ul>\n\n"
    body += f"<p>{words.sentence(40)}</p>\n\n<pre><code>{words.sentence(12)}\n    x &lt; 3\n</code></pre>\n"
    dates = f'CreationDate="2016-08-02T15:39:14.947" Score="{id_ % 7}" OwnerUserId="{id_ % 1000}"'
    return f'  <row Id="{id_}" PostTypeId="{kind}" {dates} Body={quoteattr(body)} {more} CommentCount="0" />\n'


def submissions(words: Words, comments: list[str]) -> Iterator[str]:
    """One line for each post, and into `comments` those of three comments below it."""
    number = 0
    while True:
        number += 1
        link = f"{number:x}"
        common = {
            "subreddit": "tea",
            "created_utc": 1420070400 + number,
            "edited": False,
            "gilded": 0,
            "stickied": False,
        }
        common |= {"subreddit_id": "t5_2qh33", "retrieved_on": 1425820157, "distinguished": None, "archived": False}
        own = {"id": link, "title": words.sentence(10), "selftext": words.sentence(60), "num_comments": 3, "score": 9}
        yield json.dumps(common | own | {"author": f"user{number % 999}", "url": f"http://reddit.com/{link}"}) + "\n"
        for place, parent in enumerate((f"t3_{link}", f"t1_{link}0", f"t3_{link}")):
            ids = {"id": f"{link}{place}", "parent_id": parent, "link_id": f"t3_{link}", "score": number % 5}
            text = f"&gt; {words.sentence(8)}\n\n{words.sentence(25)} **{words.sentence(4)}** [{words.sentence(3)}](http://x.org)"
            comments.append(json.dumps(common | ids | {"body": text, "author": f"user{number % 998}"}) + "\n")


def write_stackexchange(folder: Path, size: int) -> None:
    path = folder / "made.xml"
    with path.open("w", encoding="utf-8") as file:
        for row in posts(Words()):
            if file.write(row) and file.tell() > size:
                break
        file.write("</posts>")
    with path.open("rb") as plain, (folder / "made.xml.zst").open("wb") as packed:
        zstandard.ZstdCompressor().copy_stream(plain, packed)
    with py7zr.SevenZipFile(folder / "made.7z", "w", filters=[{"id": py7zr.FILTER_LZMA2, "preset": 1}]) as archive:
        archive.write(path, "Posts.xml")


def write_reddit(folder: Path, size: int) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=False, compression_level=3)
    comments: list[str] = []
    written = 0
    with (folder / "RS.zst").open("wb") as rs, (folder / "RC.zst").open("wb") as rc:
        packers = [zstandard.ZstdCompressor(compression_params=parameters).stream_writer(file) for file in (rs, rc)]
        for line in submissions(Words(), comments):
            texts = (line, "".join(comments))
            comments.clear()
            for packer, text in zip(packers, texts, strict=True):
                written += packer.write(text.encode()) and len(text)
            if written > size:
                break
        for packer in packers:
            packer.flush(zstandard.FLUSH_FRAME)


if __name__ == "__main__":
    kind, megabytes, target = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    target.mkdir(parents=True, exist_ok=True)
    {"stackexchange": write_stackexchange, "reddit": write_reddit}[kind](target, megabytes * 1_000_000)
