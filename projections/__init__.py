"""The read side: the log folded into tables, and the queries that read them as of any moment."""
