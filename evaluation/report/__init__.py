"""The page about an evaluation, read from its folder. `make.write_evaluation_report` makes it, without torch."""
