"""What is done with the clips of one unit: screen, describe, cut."""
