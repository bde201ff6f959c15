"""Parts of the pages about a dataset, a training run and an evaluation: template, style, charts.

This module imports nothing, so that the processes that only decode pictures do not load the templates.
"""
