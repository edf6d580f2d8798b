"""What a machine offers: files written whole, places for caches, its name and memory."""
