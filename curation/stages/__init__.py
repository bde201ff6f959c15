"""The steps on the clips of one unit: screen, describe, cut."""
