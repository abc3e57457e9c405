"""The families: each kind of entity with its facts, its state, its requests and what is decided about it. All pure."""
