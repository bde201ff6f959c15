"""A dataset that an older version began and did not finish: `begun.tar.gz`, which `make.py` made."""
