"""Programs that bench starts, each a process of its own: clients must not share an interpreter with who measures."""
