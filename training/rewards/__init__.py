"""What a video that the model made of a scene is worth: 1 for a Pass, 0 for a Fail, and nothing where nobody said."""
