"""What the tests of widgets share."""

from __future__ import annotations

from window_fixtures import own_settings, torch_beside_a_window

__all__ = ["own_settings", "torch_beside_a_window"]
