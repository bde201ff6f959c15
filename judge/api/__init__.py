"""The client of the Claude API: requests, retries, rate limits, batches."""
