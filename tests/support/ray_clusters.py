"""How tests start a cluster of Ray: a stranger on this machine cannot join it."""

from __future__ import annotations

import secrets

import pytest

_TOKEN = secrets.token_hex(32)  # one for all clusters of a process: Ray reads it once, when it is loaded


def with_token(patch: pytest.MonkeyPatch) -> None:
    """What the environment holds while Ray is loaded and a cluster runs."""
    patch.setenv("RAY_AUTH_MODE", "token")
    patch.setenv("RAY_AUTH_TOKEN", _TOKEN)
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
