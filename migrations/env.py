"""Alembic's entry: run the revisions on the connection that the caller has opened.

The connection comes with a transaction that its owner commits, so that an upgrade is applied
whole or not at all and under the owner's lock.
"""

from __future__ import annotations

from alembic import context

from search.models import Base
from search.store_schema import VERSION_TABLE, is_ours

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    include_object=is_ours,
    render_as_batch=True,
    transactional_ddl=False,
)
context.run_migrations()
