"""Lets the reference show the examples of docstrings as code.

The docstrings head them with "Example:"; the parser knows "Examples:" and takes the other for prose, in which
the brackets of a result would be links.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_HEADING = re.compile(r"^(\s*)Example:$", re.MULTILINE)


class ExampleSections(griffe.Extension):
    """Renames the heading in every docstring that is read."""

    def on_object(self, *, obj: griffe.Object, **context: Any) -> None:
        """What griffe calls with every module, class, function and attribute."""
        del context
        if obj.docstring is not None:
            obj.docstring.value = _HEADING.sub(r"\1Examples:", obj.docstring.value)
