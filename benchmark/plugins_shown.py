"""How `list` and `doctor` show the plug-ins, those that failed with their reasons."""

from __future__ import annotations

from typing import Any

from retrieval_bench.plugins.loading import Plugin, plugins


def plugin_lines() -> list[str]:
    """One line each: its name, where it is from, and what it registered or why it failed."""
    return [f"{one.name} ({_version(one)}): {_outcome(one)}" for one in plugins()]


def described_plugins() -> list[dict[str, Any]]:
    """The same for JSON."""
    return [
        {
            "name": one.name,
            "source": one.source,
            "status": one.status,
            "reason": one.reason or None,
            "registered": [{"kind": kind, "name": name} for kind, name in one.registered],
            "sha256": one.sha256 or None,
        }
        for one in plugins()
    ]


def _version(plugin: Plugin) -> str:
    return plugin.version if plugin.sha256 or plugin.file is None else "unread"


def _outcome(plugin: Plugin) -> str:
    if plugin.reason:
        return f"failed: {plugin.reason}"
    return f"loaded, {', '.join(name for _, name in plugin.registered) or 'registers nothing'}"
