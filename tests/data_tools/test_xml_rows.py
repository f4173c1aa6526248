import io
import subprocess
import sys
from pathlib import Path

import pytest

from data_tools import xml_rows as module
from data_tools.xml_rows import xml_rows
from largede.errors import DataError

HERE = Path("Posts.xml")


def rows(document: bytes) -> list[dict[str, str]]:
    return list(xml_rows(io.BytesIO(document), "posts", HERE))


def refusal(document: bytes) -> str:
    with pytest.raises(DataError) as raised:
        rows(document)
    assert raised.value.given.startswith("Posts.xml ")
    return raised.value.given


def test_rows_are_read_with_entities_and_line_ends_decoded() -> None:
    document = (
        '\ufeff<?xml version="1.0" encoding="utf-8"?>\n<posts>\n<row Id="1" Body="&lt;p&gt;é&#xA;" />\n<row/></posts>'
    )
    assert rows(document.encode()) == [{"Id": "1", "Body": "<p>é\n"}, {}]


BOMB = b"""<?xml version="1.0"?><!DOCTYPE posts [<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>
<posts><row Body="&c;"/></posts>"""
EXTERNAL = b"""<!DOCTYPE posts [<!ENTITY f SYSTEM "file:///etc/passwd">]><posts><row Body="x"/>&f;</posts>"""
DTD = b"""<!DOCTYPE posts SYSTEM "http://127.0.0.1:9/posts.dtd"><posts/>"""


@pytest.mark.parametrize("document", [BOMB, EXTERNAL, DTD], ids=["bomb", "external entity", "external type"])
def test_document_types_are_refused_and_nothing_is_expanded_or_fetched(document: bytes) -> None:
    assert "document type or entities" in refusal(document)


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        (b"<posts><row Id='1'/>", "is no whole XML"),
        (b"<posts><row Id='1' Bo", "is no whole XML"),
        (b"", "is empty"),
        (b"<posts><row Id='1' Id='2'/></posts>", "duplicate attribute at line 1"),
        (b"<posts>&undefined;</posts>", "is no whole XML"),
        (b"<posts><row Body='\xff'/></posts>", "is no whole XML"),
        (b"<comments><row/></comments>", "begins with <comments>, not <posts>"),
        (b"{}", "is no whole XML"),
    ],
)
def test_what_is_no_whole_dump_is_refused(document: bytes, complaint: str) -> None:
    assert complaint in refusal(document)


def test_rows_before_the_damage_are_handed_out_first() -> None:
    found = []
    with pytest.raises(DataError):
        for row in xml_rows(io.BytesIO(b"<posts>" + b"<row Id='1'/>" * 20_000 + b"<oops"), "posts", HERE):
            found.append(row)
    assert len(found) > 10_000


@pytest.mark.parametrize("filler", [b"a", b"&amp;"], ids=["one attribute", "entities"])
def test_an_absurd_row_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch, filler: bytes) -> None:
    monkeypatch.setattr(module, "MAX_ROW_BYTES", 1 << 20)
    assert "a row of more than 1,048,576 bytes" in refusal(b"<posts><row Body='" + filler * (3 << 20) + b"'/></posts>")


PEAK = """
import io, sys
from pathlib import Path
from data_tools.xml_rows import xml_rows

class Endless(io.RawIOBase):
    left = int(sys.argv[1])
    def read(self, size=-1):
        self.left -= 1
        return b"<posts>" if self.left == int(sys.argv[1]) - 1 else b"<row Body='" + b"text " * 12000 + b"'/>" if self.left > 0 else b""

try:
    for row in xml_rows(Endless(), "posts", Path("x")):
        pass
except Exception as error:
    assert "no whole XML" in str(error), error
# Not ru_maxrss, which a process takes over from the one that started it.
print(int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]) // 1024)
"""  # noqa: E501


def test_memory_does_not_grow_with_the_dump() -> None:
    words = [[sys.executable, "-c", PEAK, str(rows)] for rows in (200, 800)]
    peaks = [int(subprocess.run(w, capture_output=True, text=True, check=True).stdout) for w in words]
    assert peaks[1] < peaks[0] + 8, peaks
