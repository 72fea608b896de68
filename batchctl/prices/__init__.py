"""What tokens cost: rates with their source and date, or nothing at all when no source is certain.

`rates.py` is exact money (whole picodollars, never floats); `lookup.py` finds the price of a model in a lane: what the job
file says, then genai-prices, then `table.csv`. An unknown price is None. It is never 0, and never the live price in
place of a batch price that nobody has published.
"""

from batchctl.prices.lookup import find, override, priced_in_batch
from batchctl.prices.rates import Price, Rates, as_usd, picos, usd_text

__all__ = ["Price", "Rates", "as_usd", "find", "override", "picos", "priced_in_batch", "usd_text"]
