"""Alembic's entry: runs the migrations on the connection, and in the transaction, that `schema.py` hands over.

A new revision is a file in `versions/` and the new `HEAD` in `schema.py`; `tests/store/test_store_schema.py` says
whether tables and migrations agree, and wants a golden file of the new version.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
context.run_migrations()
