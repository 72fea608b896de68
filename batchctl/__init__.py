"""batchctl: run a table of rows through an LLM batch API, each row paid for once."""

__version__ = "0.1.0"
