"""The Markdown of Reddit into plain text, line by line, with expressions that take linear time on any input."""

import html
import re

from data_tools.readers.lines import collapsed_lines, indented, without_indents

_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+\-.!~^>|&<])")
_CODE = re.compile(r"(?<!`)(`+)(?!`)([^`]+)\1(?!`)")
# Escaped signs and code wait in the private use area until the markup is gone.
_ASIDE = {code: chr(0xE000 + code) for code in range(33, 127)}
_BACK = {0xE000 + code: chr(code) for code in range(33, 127)}

# A further backtick on the line would make it code within text; what follows tildes may hold anything.
_FENCE = re.compile(r"\s*(`{3,}(?=[^`]*$)|~{3,})")
_CODE_LINE = re.compile(r" {4}|\t")
_QUOTE = re.compile(r"\s*>(?!!)")
# Within a list a quotation is indented as code is; there a line of code may begin with an operator or Python's prompt.
_INDENTED_QUOTE = re.compile(r"\s*>(?![!=&]|>>(?:\s|$))")
_RULE = re.compile(r"\s*([-*_=])(\s*\1){2,}\s*$")
_TABLE_RULE_SIGNS = frozenset("|:- \t\r")
_LEAD = re.compile(r"\s*(#{1,6}\s+|[-*+]\s+)")
_NUMBER = re.compile(r"\s*[0-9]{1,9}[.)]\s")
# Most lines have none of the signs that any expression here begins with.
_SIGN = re.compile(r"[\\`*_\[<>~^|#+-]")
_INLINE = (
    (re.compile(r"!?\[([^\[\]]*)\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+\"[^\"]*\")?\s*\)"), r"\1"),
    (re.compile(r"<(https?://[^<>\s]*)>"), r"\1"),
    (re.compile(r">!([^!]*)!<"), r"\1"),
    (re.compile(r"(\*{1,3}|~~)(?=[^\s*~])([^*~]+)(?<=\S)\1"), r"\2"),
    # Twice: bold within italics and the reverse.
    (re.compile(r"(\*{1,3}|~~)(?=[^\s*~])([^*~]+)(?<=\S)\1"), r"\2"),
    (re.compile(r"(?<!\w)(_{1,2})([^_]+)\1(?!\w)"), r"\2"),
    # Superscript: small print, or an exponent, which keeps its sign: 2^10, x^(n+1).
    (re.compile(r"(?<![\w)\]}^])\^+\(([^()]*)\)"), r"\1"),
    (re.compile(r"(?<=[^\W\d_]{2})\^\(([^()]*)\)"), r" \1"),
    (re.compile(r"(?<!\^)\^{2,}+(?=\S)"), " "),
    (re.compile(r"(?<=[^\W\d_]{2})\^(?=[^\W\d_])"), " "),
    (re.compile(r"(?<![\w)\]}^])\^(?=[^\W_])"), ""),
)


def markdown_to_text(text: str) -> str:
    """The text as it reads, one line for each line of the source.

    Quotations are left out: a reply that quotes what it answers would give the question away. With them go the lines
    right below that Markdown counts in, up to an empty line or the beginning of something else. Links become their
    texts, bare addresses stay; code stays as it is, indentation included, but for empty lines. A fence that nothing
    closes reaches to the end, as on Reddit.
    """
    # Dumps hold what Reddit's interface answers: Markdown whose <, > and & are entities.
    text = without_indents(html.unescape(text)).replace("\u200b", "").replace("\ufeff", "")
    kept: list[str] = []
    fence = ""
    is_quoting = False
    for line in text.split("\n"):
        is_quoting = not fence and (_quotes_on(line) if _QUOTE.match(line) else is_quoting and _continues(line))
        if fence:
            if _closes(line, fence):
                fence = ""
            else:
                kept.append(indented(line))
        elif is_quoting:
            continue
        elif opening := _FENCE.match(line):
            fence = opening[1]
        elif _CODE_LINE.match(line):
            if not _INDENTED_QUOTE.match(line):
                kept.append(indented(_CODE_LINE.sub("", line, count=1)))
        elif not (_QUOTE.match(line) or _RULE.match(line) or _is_table_rule(line)):
            kept.append(_plain(line))
    return collapsed_lines("\n".join(kept))


def _quotes_on(line: str) -> bool:
    """Whether a line of a quotation ends within a paragraph, which the next line may continue without a sign."""
    quoted = line.lstrip("> \t\r")
    return bool(quoted) and not _CODE_LINE.match(line) and not quoted.startswith(("#", "```", "~~~"))


def _continues(line: str) -> bool:
    """Whether a line below a paragraph is part of it."""
    begins_block = _FENCE.match(line) or _RULE.match(line) or _LEAD.match(line) or _NUMBER.match(line)
    return bool(line.strip()) and not begins_block


def _closes(line: str, fence: str) -> bool:
    """A fence is closed by one that is as long at least and stands alone."""
    stripped = line.strip()
    return len(stripped) >= len(fence) and set(stripped) == {fence[0]}


def _aside(match: re.Match[str]) -> str:
    return match[match.re.groups].translate(_ASIDE)


def _is_table_rule(line: str) -> bool:
    return "|" in line and _TABLE_RULE_SIGNS.issuperset(line)


def _plain(line: str) -> str:
    if not _SIGN.search(line):
        return line
    line = _CODE.sub(_aside, _ESCAPE.sub(_aside, line))
    line = _LEAD.sub("", line, count=1) if _LEAD.match(line) else line
    for expression, replacement in _INLINE:
        line = expression.sub(replacement, line)
    stripped = line.strip()
    if stripped.startswith("|") and stripped.endswith("|"):
        line = stripped.replace("|", " ")
    return line.translate(_BACK)
