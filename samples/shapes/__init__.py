"""A world that can be learned: a colored shape at a place, a cause that a scene tells, and the motion that follows.

Nothing here needs more than NumPy, so that a dataset of it can be made without torch.
"""
