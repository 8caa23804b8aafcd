"""evenhand trains and fine-tunes classifiers that don't take shortcuts, with no bias labels.

The names are listed in `__init__.pyi`, each with its home. They are imported when they are first used, so that
`import evenhand` and `evenhand --help` are quick.
"""

from importlib import import_module
from typing import Any

import lazy_loader

from evenhand.version import __version__ as __version__

_named, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'evenhand' has no attribute {name!r}")
    # the package `report` can be called: as a function it would be hidden by the package that it lies in
    return import_module("evenhand.report") if name == "report" else _named(name)
