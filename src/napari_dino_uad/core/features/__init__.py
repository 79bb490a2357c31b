"""Embeddings of slices, read through the cache."""
