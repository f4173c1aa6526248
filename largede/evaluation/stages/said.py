"""What a stage says of itself when it is done."""

LEFT_OUT = "left out"
"""It was not asked for."""


def said(done: list[bool], noun: str) -> str:
    """How many of the `noun`s were made now."""
    plural = f"{noun}{'' if len(done) == 1 else 's'}"
    if not any(done):
        return f"{len(done)} {plural} unchanged, skipped"
    return f"{sum(done)} of {len(done)} {plural} made" if not all(done) else f"{len(done)} {plural} made"
