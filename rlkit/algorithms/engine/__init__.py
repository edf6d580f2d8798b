"""How updates are run: one after another as they are written, or as programs made of them."""
