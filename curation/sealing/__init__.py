"""What is committed, and what is left: sealed shards, retries, repair of damaged commits."""
