"""Sessions, labs and their state on disk. No HTTP here, and no process but through `remote_lab.netlab`."""
