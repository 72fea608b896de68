"""Speed and memory as ratios measured in one run: `python -m tests.bench`. Reported, never asserted by the clock."""
