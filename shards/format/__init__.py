"""The shard format: layout, tars, records, receipts, the manifest and the index."""
