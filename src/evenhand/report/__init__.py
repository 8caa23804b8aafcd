"""Records of runs and audits → tables, figures and pages. The only room that renders.

The package can be called: `evenhand.report(result, path)` is `evenhand.report.write.report`. As a function of that name
in `evenhand` it would be hidden by the package as soon as anything imports that.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from evenhand.report.write import ReportFiles, report, write_audit, write_report

__all__ = ["ReportFiles", "report", "write_audit", "write_report"]


class _CallableModule(ModuleType):
    """This package, as the function that it is named after."""

    __call__ = staticmethod(report)


def _make_callable() -> None:
    package: Any = sys.modules[__name__]
    package.__class__ = _CallableModule


_make_callable()
