"""latency tables"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "latency_table",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("space_key", sa.Text(), nullable=True),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_latency_table"),
    )
    op.create_index("ix_latency_table_space_key", "latency_table", ["space_key"])
    op.create_table(
        "latency_device",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.Column("hardware", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["table_name"], ["latency_table.name"], name="fk_latency_device_table_name"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_latency_device"),
        sa.UniqueConstraint("table_name", "name", name="uq_latency_device_table_name_name"),
    )
    op.create_table(
        "latency_config",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["table_name"], ["latency_table.name"], name="fk_latency_config_table_name"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_latency_config"),
        sa.UniqueConstraint("table_name", "key", name="uq_latency_config_table_name_key"),
    )
    op.create_table(
        "latency",
        sa.Column("config_id", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=True),
        sa.Column("repeat_ms", sa.Double(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["config_id"], ["latency_config.id"], name="fk_latency_config_id"),
        sa.ForeignKeyConstraint(["device_id"], ["latency_device.id"], name="fk_latency_device_id"),
        sa.PrimaryKeyConstraint("config_id", "device_id", name="pk_latency"),
    )


def downgrade() -> None:
    op.drop_table("latency")
    op.drop_table("latency_config")
    op.drop_table("latency_device")
    op.drop_table("latency_table")
