"""What every room stands on: errors, storage, processes, locks, Ray. It knows no clip, no judge and no model."""

if __name__ != "nextscene.common":  # one module under two names would be two modules
    raise ImportError(f"{__name__} is a part of nextscene; import nextscene.common")
