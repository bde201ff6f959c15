"""Next-scene-prediction data from captioned video, and the model trained on it.

The rooms are folders beside this one, reached through links: `nextscene.shards` is `shards/`.
"""
