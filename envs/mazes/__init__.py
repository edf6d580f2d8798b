"""Mazes in which a ball has to find its way."""
