"""Widgets: thin adapters over one plain function each."""
