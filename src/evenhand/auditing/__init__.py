"""Scores → ranked samples, likely shortcuts, suspicious labels and advice: data, no page.

`evenhand.audit` is the function; the room is called `auditing`, since a subpackage hides a function of its name.
"""

from evenhand.auditing.audit import audit
from evenhand.auditing.result import Audit

__all__ = ["Audit", "audit"]
