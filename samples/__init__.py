"""The shot list and captions of the sample film."""

if __name__ != "nextscene.samples":  # one module under two names would be two modules
    raise ImportError(f"{__name__} is a part of nextscene; import nextscene.samples")
