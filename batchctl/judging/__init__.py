"""One stored provider result to one verdict, by pure functions: no files, no network, no clock.

`extract` finds the answer in a provider's envelope, `strict_json` and `schema` judge it, `decide` says the verdict.
"""
