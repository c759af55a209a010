"""Generate a revision from the difference between the models and the newest revision."""

from __future__ import annotations

import sys

from alembic import command

from search.store_engine import database_url, make_engine
from search.store_schema import alembic_config, revisions, upgrade


def main() -> None:
    """`python -m migrations MESSAGE`: write a revision file next to the others."""
    engine = make_engine(database_url("sqlite://"))
    if revisions():
        upgrade(engine)
    with engine.begin() as connection:
        command.revision(
            alembic_config(connection),
            message=" ".join(sys.argv[1:]),
            autogenerate=True,
            rev_id=f"{int(max(revisions(), default='0')) + 1:04d}",
        )


main()
