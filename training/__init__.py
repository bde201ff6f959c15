"""The model, its training stages, and the training loop. Only `training.distributed.ray_train` imports ray."""

if __name__ != "nextscene.training":  # imported under two names, a module would exist twice
    raise ImportError(f"{__name__} is a part of nextscene; import nextscene.training")
