"""Comparing models: known answers give known verdicts, and every form of the verdict says the same."""
