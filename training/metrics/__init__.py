"""What is measured of training: losses, throughput, FLOPs."""
