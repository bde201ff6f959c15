"""Training on several processes: process groups, FSDP2, Ray Train, restarts."""
