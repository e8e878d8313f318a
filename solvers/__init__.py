"""Classical optimal control."""
