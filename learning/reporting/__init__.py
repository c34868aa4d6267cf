"""The report: the paper's tables and figures, its numbers beside ours."""

from learning.reporting.page import write_report

__all__ = ["write_report"]
