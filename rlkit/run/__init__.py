"""A run: its folder, its session from configuration to result, its words."""
