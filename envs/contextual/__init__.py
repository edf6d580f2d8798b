"""Tasks with a context: the worlds among which MBTL chooses."""
