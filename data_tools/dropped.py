"""What a reader left out: counted by reason, with one example of each."""

from collections import Counter
from typing import Any

_EXAMPLE_CHARACTERS = 200


class Dropped(Counter[str]):
    """Records by reason of being dropped. `examples` holds the first example given for a reason."""

    def __init__(self) -> None:
        super().__init__()
        self.examples: dict[str, str] = {}

    def note(self, reason: str, example: str) -> None:
        """Count one record; `example` says which (an id) and, if short, what it holds."""
        self[reason] += 1
        if reason not in self.examples:
            # Half a UTF-16 pair may be the very reason; a manifest has to be UTF-8 all the same.
            printable = example.encode("utf-8", "backslashreplace").decode()
            self.examples[reason] = " ".join(printable.split())[:_EXAMPLE_CHARACTERS]

    def merge(self, record: dict[str, Any]) -> None:
        """Add what `to_dict` made of another; the examples already here stay."""
        for reason, entry in record.items():
            self[reason] += entry["count"]
            if entry["example"]:
                self.examples.setdefault(reason, entry["example"])

    def to_dict(self) -> dict[str, Any]:
        return {reason: {"count": self[reason], "example": self.examples.get(reason, "")} for reason in sorted(self)}
