"""The reference pages, made from the code: docs/events.md, operations.md and settings.md.

    ops/docs            writes them          ops/docs --check     fails when they are stale

Rule: nothing stands there that the code does not say. Docstrings, descriptions, types and defaults come from the
structs, tables from the schema, command lines from the doors, error codes from the syntax of the decisions.
"""
