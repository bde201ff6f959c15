"""Video files and images: headers, seeking, decoding, colors and encoding."""
