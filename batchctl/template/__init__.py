"""The prompt's template: Jinja2 in a sandbox, bounded in size and work, and a fast path for plain insertion.

The template is the operator's, rows are strangers' data: a row is only ever a value, never parsed as a template, and a
template is rendered once. Jinja's own sandbox stops the escapes (`__class__`, `str.format`) but not the bombs
(`"a" * 10**9`, nested loops), so every template is rewritten before it is compiled: each loop round and each macro call
pays from a budget, and so does every operation that can make a large value out of small ones. What cannot be priced
(most methods, `lipsum`, `random`) is not offered. The budget counts work, not seconds, so that the same row fails or
renders on every machine.
Written against Jinja2 3.1.6 (jinja.palletsprojects.com/en/stable/sandbox, read 2026-11-21).
"""

from batchctl.template.budget import MAX_CHARS, WORK
from batchctl.template.reading import ColumnRef
from batchctl.template.rendering import Template
from batchctl.template.values import Unrenderable, as_json, as_text

__all__ = ["MAX_CHARS", "WORK", "ColumnRef", "Template", "Unrenderable", "as_json", "as_text"]
