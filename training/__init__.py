"""The model, its stages and the one loop that trains it. Only `training.on_ray` imports ray."""
