"""Asking the Claude API: requests, retries, rate limits, batches."""
