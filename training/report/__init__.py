"""The page about a training run, read from its folder. `make.write_run_report` makes it. Nothing here imports torch."""
