"""Toy checkpoints in the layouts of the published ones, made from a dataset, so that a CPU can run all stages.

Their classes are those of the published models. Training results with them say nothing about the paper's results.
"""
