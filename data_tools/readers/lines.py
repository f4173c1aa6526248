"""What the texts of all readers have in common."""


def collapsed_lines(text: str) -> str:
    """Every run of white space within a line one space, no empty lines, nothing around."""
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)
