"""Records of runs → tables, figures and one page. The only room that renders."""

from evenhand.report.write import ReportFiles, write_report

__all__ = ["ReportFiles", "write_report"]
