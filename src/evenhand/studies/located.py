"""YAML whose every value knows its line, so that a mistake in it can be shown where it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from evenhand.validation import UserError

Place: TypeAlias = tuple[str | int, ...]
"""Keys and indices from the top of the file down to a value."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers (1e-3 is one), and dates stay texts."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
               r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"),
    list("-+0123456789."),
)  # fmt: skip


@dataclass(frozen=True)
class Located:
    """A YAML file's content.

    Attributes:
        name: The file's name, for messages.
        content: Mappings, lists and plain values.
        root: The nodes that the content was made from.
    """

    name: str
    content: Any
    root: yaml.Node

    def line(self, place: Place) -> int:
        """The line, from 1, of a value (a mapping's: that of its key), or of the nearest thing around it."""
        node, line = self.root, self.root.start_mark.line
        for step in place:
            if isinstance(node, yaml.MappingNode):
                found = next(((k, v) for k, v in node.value if k.value == str(step)), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line
            else:
                break
        return line + 1

    def error(self, place: Place, sentence: str) -> UserError:
        """The error for a mistake at a place of the file."""
        return UserError(f"{self.name}, line {self.line(place)}: {sentence}")


def read_yaml(path: Path) -> Located:
    """Read a file.

    Raises:
        UserError: If it is missing, no UTF-8 text, no valid YAML, empty, or names a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"There is no file '{path}'.") from error
    except OSError as error:
        raise UserError(f"The file '{path}' can't be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise UserError(f"The file '{path}' is no UTF-8 text.") from error
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            raise UserError(f"The file '{path}' is empty.")
        _check_keys(path.name, root)
        return Located(path.name, loader.construct_document(root), root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path.name}{line}: this is not valid YAML ({error.problem or error.context}).") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path.name}: this is not valid YAML ({' '.join(str(error).split())}).") from error
    finally:
        loader.dispose()


def _check_keys(name: str, node: yaml.Node) -> None:
    """Keys are plain and stand once: YAML itself would take the last of two."""
    children: Sequence[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"{name}, line {line}: a key must be a plain word.")
            if key.value in seen:
                raise UserError(f"{name}, line {line}: the key '{key.value}' stands twice, first in line "
                                f"{seen[key.value]}.")  # fmt: skip
            seen[key.value] = line
        children = [value for _, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    for child in children:
        _check_keys(name, child)
