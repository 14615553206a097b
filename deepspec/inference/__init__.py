"""Engines: what turns a problem into an answer. A new one is a module with one function and one line in `ENGINES`."""

from deepspec.registry import Registry

ENGINES = Registry("engine", {"maximum": "deepspec.inference.maximum:maximum"})
"""What ``--engine`` takes; each is called with (problem, options)."""
