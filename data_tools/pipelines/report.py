"""The report of a pipeline: `report.json` for programs, `report.md` and `report.html` for people."""

from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

from data_tools.parts import REPORT, part_name
from data_tools.wording import counted
from largede.evaluation.report.style import STYLE
from largede.files import write_json, write_text

_MARKDOWN_CHARACTERS = 300
_OWN_STYLE = "td{white-space:normal}td:first-child{text-align:left}details dl{border:0;margin:0}"


def merged(made_from: dict[str, Any], counts: list[dict[str, Any]], facts: dict[str, Any]) -> dict[str, Any]:
    """One report of the counts of all parts, in their order: of each reason the first example is shown.

    `facts` go into a table, but for those under "examples", which replace and extend the examples of the parts.
    """
    removed: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    examples: dict[str, dict[str, Any]] = {}
    for count in counts:
        removed.update(count["removed"])
        notes.update(count["notes"])
        examples = count["examples"] | examples
    parts = [
        {"name": part_name(number)} | {key: count[key] for key in ("input", "bytes", "read", "kept")}
        for number, count in enumerate(counts)
    ]
    return {
        "made_from": made_from,
        "read": sum(count["read"] for count in counts),
        "kept": sum(count["kept"] for count in counts),
        "removed": dict(removed.most_common()),
        "notes": dict(notes.most_common()),
        "facts": {name: value for name, value in facts.items() if name != "examples"},
        "examples": {reason: examples[reason] for reason, _ in removed.most_common()} | facts.get("examples", {}),
        "task_seconds": round(sum(count["seconds"] for count in counts), 3),
        "parts": parts,
    }


def write_report(folder: Path, report: dict[str, Any]) -> None:
    write_json(folder / REPORT, report)
    write_text(folder / "report.md", markdown(report))
    write_text(folder / "report.html", html(report))


def _title(report: dict[str, Any]) -> str:
    return f"largede-data {report['made_from']['verb']}"


def _sentence(report: dict[str, Any]) -> str:
    read, kept = report["read"], report["kept"]
    return f"{counted(read, 'pair')} read, {kept:,} kept, {read - kept:,} removed ({(read - kept) / read:.2%})."


def _tables(report: dict[str, Any]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """(heading, first column, rows) of each table that has rows."""
    read = report["read"]
    removed = [(reason, f"{count:,} ({count / read:.2%})") for reason, count in report["removed"].items()]
    tables = [
        ("Removed", "reason (the first that applied)", removed),
        ("Counted beside", "what", [(name, f"{count:,}") for name, count in report["notes"].items()]),
        ("About this run", "what", [(name, str(value)) for name, value in report["facts"].items()]),
        ("Settings", "setting", [(name, str(value)) for name, value in report["made_from"]["settings"].items()]),
    ]
    return [table for table in tables if table[2]]


def _fields(example: dict[str, Any]) -> list[tuple[str, str]]:
    """An example as (name, text) lines; texts inside get the name of what they belong to."""
    fields = []
    for name, value in example.items():
        if isinstance(value, dict):
            fields += [(f"{name}, {inner}" if name != "pair" else inner, str(text)) for inner, text in value.items()]
        else:
            fields.append((name, str(value)))
    return fields


def markdown(report: dict[str, Any]) -> str:
    lines = [f"# {_title(report)}", "", _sentence(report), ""]
    for heading, first, rows in _tables(report):
        lines += [f"## {heading}", "", f"| {first} | |", "|---|---|"]
        lines += [f"| {_plain(name)} | {_plain(value)} |" for name, value in rows] + [""]
    if report["examples"]:
        lines += ["## One example of each", ""]
    for reason, example in report["examples"].items():
        lines += [f"### {_plain(reason)}", ""]
        lines += [f"- {name}: {_plain(text)}" for name, text in _fields(example)] + [""]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text from the data as one line of Markdown that shows itself: no markup of its own comes into effect."""
    line = " ".join(text.split())
    line = line if len(line) <= _MARKDOWN_CHARACTERS else line[:_MARKDOWN_CHARACTERS] + " …"
    return "".join("\\" + sign if sign in "\\`*_{}[]<>#|!&~" else sign for sign in line)


def html(report: dict[str, Any]) -> str:
    tables = "".join(_html_table(*table) for table in _tables(report))
    examples = "".join(_html_example(*item) for item in report["examples"].items())
    heading = "<h2>One example of each</h2>" if examples else ""
    title = escape(_title(report))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}{_OWN_STYLE}</style>"
        f'</head><body><main><h1>{title}</h1><p class="lead">{escape(_sentence(report))}</p>'
        f"{tables}{heading}{examples}</main></body></html>\n"
    )


def _html_table(heading: str, first: str, rows: list[tuple[str, str]]) -> str:
    body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    head = f"<thead><tr><th>{escape(first)}</th><th></th></tr></thead>"
    return f'<h2>{escape(heading)}</h2><div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def _html_example(reason: str, example: dict[str, Any]) -> str:
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in _fields(example))
    return f'<details><summary><span class="query">{escape(reason)}</span></summary><dl>{lines}</dl></details>'
