"""Gymnasium environments and the records that name them.  Importing this registers nothing and loads nothing."""
