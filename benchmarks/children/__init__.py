"""What the benchmarks start as processes of their own, to be measured from outside."""
