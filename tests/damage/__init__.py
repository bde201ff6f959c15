"""Damaged files through the product: found, or the picture is right; and healthy ones, which must never be found."""
