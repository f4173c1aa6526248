"""How figures are written, the same on the page and in the tables."""

from largede.evaluation.results.published import PAPER


def four_digits(value: float, *, signed: bool = False) -> str:
    shown = f"{value:.4f}"
    if float(shown) == 0:
        return "0.0000"
    return f"{value:+.4f}".replace("-", "−") if signed else shown


def published_digits(value: float, family: str) -> str:
    """With the digits it was published with: three in the paper, whose averages are ours, else four."""
    return f"{value:.3f}" if family == PAPER and abs(value - round(value, 3)) < 1e-9 else f"{value:.4f}"


def p_digits(p: float) -> str:
    """Two digits that mean something; floats end at 1e-308."""
    if p < 1e-300:
        return "below 1e-300"
    return f"{p:.2f}" if p >= 0.095 else f"{p:.2g}"
