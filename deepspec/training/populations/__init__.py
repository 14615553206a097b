"""Kinds of X-ray sources: one block per class, each a documented prior over physical parameters."""
