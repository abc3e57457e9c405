"""One projection per file: its tables, its fold, and the handlers of its queries."""
