"""The page about a dataset: counts from its ledger, and some of its clips as filmstrips. `make.write_report` makes it.

This module imports nothing, so that the processes that only decode pictures do not load the plots.
"""
