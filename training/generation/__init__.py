"""Videos out of texts: by the model that was trained here, and by the original LTX-Video beside it."""
