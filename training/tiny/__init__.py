"""Checkpoints of toy size in the layouts of the published ones, made of a dataset: a CPU can go the whole road.

Their classes are the real ones; what is learnt from them says nothing about the paper's results.
"""
