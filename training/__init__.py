"""The model, its stages and the one loop that trains it. Only `training.distributed.ray_train` imports ray."""

if __name__ != "nextscene.training":  # one module under two names would be two modules
    raise ImportError(f"{__name__} is a part of nextscene; import nextscene.training")
