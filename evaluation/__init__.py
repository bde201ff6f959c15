"""Judging generated videos: scores of models, and how they compare."""

if __name__ != "nextscene.evaluation":  # one module under two names would be two modules
    raise ImportError(f"{__name__} is a part of nextscene; import nextscene.evaluation")
