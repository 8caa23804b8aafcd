"""The command line: the verbs, which compose the other rooms."""

from evenhand.cli.parser import main

__all__ = ["main"]
