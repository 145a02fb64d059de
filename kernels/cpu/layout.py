"""The memory order of all fast kernels, `kernels/layout.py`, under the name that the kernels here know."""

from ..layout import channels_first, channels_last, contiguous, flat_views, like

__all__ = ["channels_first", "channels_last", "contiguous", "flat_views", "like"]
