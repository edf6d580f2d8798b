"""Gymnasium environments and the records that name them.

Importing this registers every ``rlkit/...`` id with Gymnasium (which has loaded no plug-ins by itself since 1.0) and
loads none of the environments: ``gym.make("rlkit.envs:rlkit/Hopper-v5")``, or ``import rlkit.envs`` first.
"""

from rlkit.envs.records import register_all

register_all()
