"""Flat patches of exact code values through the product, against the documented conversion written a second time."""
