"""Does the toy model learn the world of shapes? A campaign over seeds, run by hand: `python -m tests.toy_world`."""
