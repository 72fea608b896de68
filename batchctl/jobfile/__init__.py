"""The job file: TOML text in, a frozen `Job` or one error that names every problem out.

`keys.py` is the format (pydantic), `values.py` the written forms of shares, sizes and times, `lines.py` finds the line
of a key, `secrets.py` knows what must never be in the file, `problems.py` words what is wrong,
`reading.py` joins them.
"""

from batchctl.jobfile.keys import (
    Job,
    Lane,
    Limits,
    Model,
    Notify,
    Output,
    Prices,
    Prompt,
    Publish,
    Retention,
    Retry,
    Review,
    Rule,
    RulesBuiltin,
    Sample,
    Source,
    Truncated,
    json_schema,
)
from batchctl.jobfile.reading import from_text, load
from batchctl.jobfile.values import Money

__all__ = [
    "Job",
    "Lane",
    "Limits",
    "Model",
    "Money",
    "Notify",
    "Output",
    "Prices",
    "Prompt",
    "Publish",
    "Retention",
    "Retry",
    "Review",
    "Rule",
    "RulesBuiltin",
    "Sample",
    "Source",
    "Truncated",
    "from_text",
    "json_schema",
    "load",
]
