"""The stage `rl`: videos are sampled with noise on the way, judged, and what did better is made likelier (GRPO)."""
