"""The model of arXiv 2512.13015: Qwen2.5-VL reads, learnable queries and a connector hand over, LTX-Video draws."""
