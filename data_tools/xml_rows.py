"""The rows of an XML dump as a stream: one element after the other, each only attributes.

Document types are refused outright, and with them entity bombs and references to other files. No tree is built, and a
row may not be longer than any post is, so memory does not grow with the file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler
from xml.sax.xmlreader import AttributesImpl

from defusedxml.common import DefusedXmlException
from defusedxml.expatreader import DefusedExpatParser

from largede.errors import DataError

MAX_ROW_BYTES = 1 << 24
_READ_BYTES = 1 << 16


def xml_rows(stream: IO[bytes], root: str, where: Path) -> Iterator[dict[str, str]]:
    """The attributes of every <row> in a document whose outermost element is `root`.

    Raises DataError that names `where`: for XML that is damaged or ends too early, has a document type, another root,
    or a row above MAX_ROW_BYTES.
    """
    handler = _Rows(root)
    parser = DefusedExpatParser(forbid_dtd=True)
    parser.setContentHandler(handler)
    since_row = 0
    try:
        while data := stream.read(_READ_BYTES):
            parser.feed(data)
            since_row = 0 if handler.rows else since_row + len(data)
            if since_row > MAX_ROW_BYTES:
                raise _NoSuchDocument(f"has a row of more than {MAX_ROW_BYTES:,} bytes")
            yield from handler.rows
            handler.rows.clear()
        parser.close()
        if handler.is_waiting:
            raise _NoSuchDocument("is empty")
    except (SAXParseException, DefusedXmlException, _NoSuchDocument) as error:
        raise _refusal(where, root, error) from None


class _NoSuchDocument(Exception):
    pass


class _Rows(ContentHandler):
    def __init__(self, root: str) -> None:
        super().__init__()
        self._root: str | None = root
        self.rows: list[dict[str, str]] = []

    @property
    def is_waiting(self) -> bool:
        """For the outermost element."""
        return self._root is not None

    def startElement(self, name: str, attrs: AttributesImpl) -> None:
        if name == "row" and self._root is None:
            self.rows.append(dict(attrs.items()))
        elif self._root is not None:
            if name != self._root:
                raise _NoSuchDocument(f"begins with <{name[:40]}>, not <{self._root}>")
            self._root = None


def _refusal(where: Path, root: str, error: Exception) -> DataError:
    if isinstance(error, SAXParseException):
        place = f"line {error.getLineNumber()}, column {error.getColumnNumber()}"
        what = f"is no whole XML: {error.getMessage()} at {place}"
    elif isinstance(error, DefusedXmlException):
        what = f"has a document type or entities ({type(error).__name__}), which no dump has"
    else:
        what = str(error)
    return DataError(
        f"{where} {what}", expected=f"a dump: <{root}> with one <row .../> for each record", mend="fetch the file again"
    )
