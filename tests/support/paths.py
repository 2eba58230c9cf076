"""Where the files lie that tests read."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

SHARED = ROOT.parent / "shared"
"""Real photos and weights that may lie beside the checkout; a test that wants them skips with a reason without them."""
