"""Running: the store, the runner that owns a sweep, and the process in which a trial is executed."""
