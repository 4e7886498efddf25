"""Remote Lab Manager: exclusive, queued access to real network labs on a lab host."""

__version__ = "0.1.0"
