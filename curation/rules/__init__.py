"""Rules of the screen: they reject clips before a judge is asked about them."""
