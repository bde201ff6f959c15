"""Code that the commands share: options, messages, progress, exit codes, signals."""
