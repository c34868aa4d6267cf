"""Reports: the paper's tables and figures with its numbers and ours, and the benchmark's."""

from learning.reporting.benchmark import write_benchmark_report
from learning.reporting.page import write_report

__all__ = ["write_benchmark_report", "write_report"]
