"""The named errors of largede.

Every boundary (recipe, data file, checkpoint, environment) raises one of these. The command line prints the
message without a traceback and exits with status 2; a traceback therefore always means a defect of largede.
"""


class LargedeError(Exception):
    """Something a user handed over cannot be used.

    The message has three parts: what was given, what was expected, and how to mend it.
    """

    def __init__(self, given: str, *, expected: str, mend: str) -> None:
        self.given = given
        self.expected = expected
        self.mend = mend
        super().__init__(f"{given}\n  expected: {expected}\n  to mend:  {mend}")

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip between processes although the constructor takes keyword arguments."""
        return (_rebuild, (type(self), self.given, self.expected, self.mend))


def _rebuild(kind: type[LargedeError], given: str, expected: str, mend: str) -> LargedeError:
    return kind(given, expected=expected, mend=mend)


class RecipeError(LargedeError):
    """A recipe has an unknown key, an impossible value, or numbers that do not fit each other."""


class DataError(LargedeError):
    """A pair file, shard, index, corpus, qrels or run file cannot be read or contradicts another."""


class ModelError(LargedeError):
    """A model or tokenizer folder cannot be loaded, or does not fit what it is used with."""


class CheckpointError(LargedeError):
    """A checkpoint is missing, damaged, half-written, or of another model."""


class MachineError(LargedeError):
    """The machine lacks something: Java, a GPU, disk space, ranks."""


class NoRoomError(MachineError):
    """A disk, or the share of it that may be used, is full."""


class TrainingError(LargedeError):
    """A run cannot go on: a loss or gradient that is not finite, ranks that disagree."""
