"""Proving a dataset: files against checksums, rows against what they were made from."""
