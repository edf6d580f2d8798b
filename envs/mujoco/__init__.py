"""Batched MuJoCo, and tasks with distracting coordinates."""
