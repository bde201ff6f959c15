"""The model, its stages and the one loop that trains it. Imports without ray; `training.launch.on_ray` alone needs it."""
