"""The stage `rl` (GRPO): sample videos with added noise, judge them, and make the better ones more likely."""
