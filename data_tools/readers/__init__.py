"""The formats of `largede-data pairs`, one file each."""

from data_tools.format import Format
from data_tools.readers import reddit, stackexchange

FORMATS: tuple[Format, ...] = (stackexchange.FORMAT, reddit.FORMAT)
