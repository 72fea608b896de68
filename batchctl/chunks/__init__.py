"""Chunks: request files that fit one batch, and the Parquet segments beside them."""
