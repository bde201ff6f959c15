"""Benchmarks: one file per claim, each comparing the product with something measured in the same run."""
