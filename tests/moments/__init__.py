"""The right moment: numbered frames in every container, cut by the product, compared with a decode of the whole file.

`frames.py` draws and reads numbers, `files.py` makes the videos that `matrix.py` lists, `oracle.py` says what each clip
must show, and `campaign.py` has the product cut them. `python -m tests.moments` runs all of it, `test_moments.py` a
sample.
"""
