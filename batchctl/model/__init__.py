"""Frozen values and the error tree. No I/O here; every other room may import it."""
