"""Benchmarks of every method over a data set."""
