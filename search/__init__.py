"""Jobs, the store, evolution, execution and reports."""
