"""The formats of `largede-data pairs`, one file each."""

from data_tools.format import Format

FORMATS: tuple[Format, ...] = ()
