"""Measurements of training: losses, throughput, FLOPs."""
