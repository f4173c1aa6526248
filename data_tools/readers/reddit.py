"""Reddit: dumps of submissions (RS) and comments (RC) into pairs of a post or comment and a reply to it.

As published by Pushshift and its successors: JSON lines, RS_2015-01.zst and RC_2015-01.zst, or the two files of a
subreddit. What is a submission and what a comment is seen from the records. Comments are joined with what they answer
wherever in the inputs it is, so give all months that belong together at once. Their frames have windows of 2 GiB:
each process that reads one may take so much memory.
"""

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from data_tools.dropped import Dropped
from data_tools.format import Format, Record, option
from data_tools.readers.markdown import markdown_to_text
from data_tools.sources import lines_of
from largede.streams.pair import Pair

_GONE = frozenset({"[deleted]", "[removed]", "[deleted by user]", "[removed by reddit]"})
# By case, because Abbot, Talbot and MrRobot are people.
_BOT = re.compile(r"[a-z0-9]Bot[_-]?$|[_-](?i:bot)([_-]|$)")
_BOTS = frozenset(
    {"automoderator", "autotldr", "totesmessenger", "mtgcardfetcher", "autowikibot", "imguralbumbot", "sneakpeekbot"}
    | {"dogetipbot", "haikubot-1992", "writingpromptsrobot", "xkcd_transcriber", "youtubefactsbot"}
)
"""Without capitals. Those that give no sign of it in the way they spell themselves."""
_POST, _COMMENT = "t3_", "t1_"


@dataclass(frozen=True)
class RedditOptions:
    pairs: str = option("both", "replies to posts, to comments, or to either", ("post-reply", "reply-reply", "both"))
    replies: str = option("all", "all replies to a text, or only the one with most votes", ("all", "best"))
    min_score: int = option(1, "leave out replies with fewer votes; every comment begins with 1", metavar="VOTES")
    min_words: int = option(4, "leave out texts of fewer words, on either side", metavar="WORDS")


class Text(NamedTuple):
    """A post or comment. `parent` is empty for posts, `title` for comments; `body` is Markdown."""

    name: str
    parent: str
    title: str
    body: str
    score: int
    subreddit: str


def texts(path: Path, options: RedditOptions, dropped: Dropped) -> Iterator[Record]:
    """Posts and comments by the post they belong to."""
    for number, line in enumerate(lines_of(path), start=1):
        if line.isspace():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            dropped.note("line that is no JSON object", f"{path.name} line {number}")
            continue
        found = _text_of(record, f"{path.name} line {number}", dropped)
        if found is not None:
            thread, text = found
            yield thread.encode("utf-8", "replace"), json.dumps(text).encode()


def _text_of(record: dict[str, Any], where: str, dropped: Dropped) -> tuple[str, Text] | None:
    """(post it belongs to, text), or None when it was dropped."""
    is_comment = "link_id" in record
    wanted = ("id", "author", "subreddit", "body", "link_id", "parent_id") if is_comment else (
        "id", "author", "subreddit", "selftext", "title"
    )  # fmt: skip
    values = {key: record.get(key) for key in wanted}
    score = record.get("score")
    if not isinstance(score, int) or not all(isinstance(value, str) for value in values.values()):
        dropped.note("neither post nor comment with author, text and votes", where)
        return None
    fields: dict[str, str] = {key: str(value) for key, value in values.items()}
    body = fields["body" if is_comment else "selftext"].strip()
    name = f"{_COMMENT if is_comment else _POST}{fields['id']}"
    if body.lower() in _GONE:
        dropped.note("deleted or removed", name)
        return None
    if _BOT.search(fields["author"]) or fields["author"].lower() in _BOTS:
        dropped.note("written by a bot", f"{name} by {fields['author']}")
        return None
    if is_comment:
        return fields["link_id"], Text(name, fields["parent_id"], "", body, score, fields["subreddit"])
    return name, Text(name, "", fields["title"], body, score, fields["subreddit"])


def pairs_of_thread(key: bytes, records: list[bytes], options: RedditOptions, dropped: Dropped) -> Iterator[Pair]:
    """The pairs of one post and all that was written below it, in the order of the inputs."""
    by_name: dict[str, Text] = {}
    for record in records:
        text = Text(*json.loads(record))
        if text.name in by_name:
            dropped.note("given twice", text.name)
        else:
            by_name[text.name] = text
    plain: dict[str, str] = {}
    candidates = [text for text in by_name.values() if text.parent]
    replies = [reply for reply in candidates if _is_wanted(reply, by_name, plain, options, dropped)]
    if options.replies == "best":
        replies = _best(replies, dropped)
    _count_posts_in_no_pair(by_name, candidates, replies, dropped)
    for reply in replies:
        yield Pair(
            query=plain[reply.parent],
            positive=plain[reply.name],
            query_id=f"reddit/{reply.parent}",
            positive_id=f"reddit/{reply.name}",
            group=f"reddit/{key.decode()}",
            source=f"reddit/{reply.subreddit}",
            score=reply.score,
        )


def _count_posts_in_no_pair(
    by_name: dict[str, Text], candidates: list[Text], replies: list[Text], dropped: Dropped
) -> None:
    """So that what was read can be added up: a post is the query of pairs, or counted; a comment replies, or is."""
    answered, used = ({reply.parent for reply in of} for of in (candidates, replies))
    for text in by_name.values():
        if not text.parent and text.name not in used:
            reason = "post of whose replies none makes a pair" if text.name in answered else "post without a reply"
            dropped.note(reason, f"{text.name}: {text.title}")


def _is_wanted(
    reply: Text, by_name: dict[str, Text], plain: dict[str, str], options: RedditOptions, dropped: Dropped
) -> bool:
    """Whether a reply makes a pair; if not, it is counted. The texts of both go into `plain`."""
    to_post = reply.parent.startswith(_POST)
    reason = ""
    if reply.parent not in by_name:
        reason = "reply to a text that is missing or was dropped"
    elif options.pairs == ("reply-reply" if to_post else "post-reply"):
        reason = f"reply to a {'post' if to_post else 'comment'}, with --pairs {options.pairs}"
    elif reply.score < options.min_score:
        reason = "reply below --min-score"
    else:
        for text in (by_name[reply.parent], reply):
            if text.name not in plain:
                plain[text.name] = _plain(text)
        if _words(plain[reply.parent]) < options.min_words:
            reason = "reply to a text below --min-words"
        elif _words(plain[reply.name]) < options.min_words:
            reason = "reply below --min-words"
    if reason:
        dropped.note(reason, f"{reply.name}: {reply.body}")
    return not reason


def _plain(text: Text) -> str:
    title = " ".join(html.unescape(text.title).split())
    return f"{title}\n{markdown_to_text(text.body)}".strip()


def _words(text: str) -> int:
    return len(text.split())


def _best(replies: list[Text], dropped: Dropped) -> list[Text]:
    """Of the replies to each text the one with most votes, of equals the first."""
    best: dict[str, Text] = {}
    for reply in replies:
        rival = best.get(reply.parent)
        if rival is not None:
            loser = rival if reply.score > rival.score else reply
            dropped.note("not the reply with most votes, with --replies best", loser.name)
        if rival is None or reply.score > rival.score:
            best[reply.parent] = reply
    return list(best.values())


FORMAT = Format(
    name="reddit",
    summary="Reddit dumps: post to reply, and reply to reply.",
    example="largede-data pairs reddit RS_2015-01.zst RC_2015-01.zst --out reddit --workers 4",
    options=RedditOptions,
    read=texts,
    groupings=(pairs_of_thread,),
    inputs="JSON lines of submissions or comments, .zst or other",
)
