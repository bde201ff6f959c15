"""Rules of the screen: which clips are rejected before a judge is asked about them."""
