"""The page about a dataset: what its ledger counts, and some of its clips as filmstrips. `make.write_report` makes it.

Nothing is imported here: the processes that only decode pictures would load the plots.
"""
