"""The same work on DBOS and on LangGraph's saver, both on PostgreSQL, in an environment of their own."""
