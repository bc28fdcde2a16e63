"""Numbers that can be trusted: estimates, accuracy, timing, footprint, structure, and the machine they hold for."""
