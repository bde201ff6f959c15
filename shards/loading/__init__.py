"""Reading shards: datasets, decoding, the endless shuffled order, and batches for training."""
