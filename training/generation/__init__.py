"""Generation of videos from texts, by the trained model or by the original LTX-Video."""
