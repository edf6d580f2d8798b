"""A run: its folder, its way from configuration to result, its reports, its signals."""
