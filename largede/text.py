"""How the fields of a passage become the one text that every part of largede encodes, indexes and hashes."""

import hashlib


def passage_text(title: str, body: str) -> str:
    """Join title and body as BEIR's own evaluation does: a single space between, no title means the body alone."""
    return f"{title} {body}".strip() if title else body.strip()


def text_key(text: str) -> int:
    """A 63-bit key of a text, equal on every machine; equal texts up to surrounding and repeated white space agree."""
    digest = hashlib.blake2b(" ".join(text.split()).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def whole(text: str) -> str:
    """The same text; half of a surrogate pair, from a text cut in its middle, becomes the replacement character.

    JSON can say such a half, but no tokenizer, index or file of UTF-8 takes it.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
