"""Verification of a dataset: files against checksums, rows against the data that they were made from."""
