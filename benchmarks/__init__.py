"""Benchmarks: one file a claim, each comparing the product with something measured in the same run."""
