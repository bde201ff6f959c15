"""The model of arXiv 2512.13015: Qwen2.5-VL with learnable queries and a connector conditions LTX-Video."""
