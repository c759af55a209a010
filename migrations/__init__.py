"""Alembic revisions of the store's tables; `search.store_schema` applies them when it opens one.

A new revision: change `search/models.py`, then `python -m migrations "what changes"`, then read
and mend what was generated.
"""
