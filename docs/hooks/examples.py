"""Has griffe read the section `Example:` of our docstrings, which it calls `Examples:`, as code."""

import re

import griffe


class Examples(griffe.Extension):
    """Renames the section in every docstring that griffe reads."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)
