"""The committed and the remaining work: sealed shards, retries, and the repair of damaged commits."""
