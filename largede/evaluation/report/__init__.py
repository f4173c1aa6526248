"""The page people look at, the same as Markdown tables, and the folder of both.

Every number of ours that was measured is inside an element with `data-figure`, so that it can be found again in the
page; published ones have `data-published`, lengths of passages `data-length`, times and sizes of indexes `data-index`.
"""

from largede.evaluation.report.markdown import render_markdown
from largede.evaluation.report.page import render_report
from largede.evaluation.report.write import read_report, write_report

__all__ = ["read_report", "render_markdown", "render_report", "write_report"]
