"""download days.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op


revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "download_day",
        sa.Column("id", sa.String(length=96), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("track_id", sa.String(length=40), nullable=False),
        sa.Column("grant_id", sa.String(length=40), nullable=True),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("completed", sa.Integer(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["grant_id"], ["access_grant.id"], name=op.f("fk_download_day_grant_id_access_grant")
        ),
        sa.ForeignKeyConstraint(
            ["track_id"], ["track.id"], name=op.f("fk_download_day_track_id_track")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_download_day")),
    )
    op.create_index("ix_download_day_day", "download_day", ["day", "track_id", "grant_id"])
    op.create_index("ix_download_day_track_id", "download_day", ["track_id", "day"])
    op.create_index("ix_download_day_grant_id", "download_day", ["grant_id", "day"])
    op.add_column("download", sa.Column("counted_at", sa.DateTime(timezone=True), nullable=True))
    _count()
    op.drop_index("ix_download_grant_id", table_name="download")
    op.create_index("ix_download_grant_id", "download", ["grant_id", "started_at"])
    op.create_index(
        "ix_download_uncounted",
        "download",
        ["started_at", "id"],
        sqlite_where=sa.text("counted_at IS NULL"),
        postgresql_where=sa.text("counted_at IS NULL"),
    )


def _count() -> None:
    """Make the figures of every day there is, in one statement each."""
    postgres = op.get_bind().dialect.name == "postgresql"
    day = "CAST(timezone('UTC', started_at) AS date)" if postgres else "date(started_at)"
    op.execute(
        "INSERT INTO download_day (id, day, track_id, grant_id,"
        " deliveries, completed, files, bytes, tokens)"
        f" SELECT {day} || '|' || track_id || '|' || coalesce(grant_id, ''),"
        f" {day}, track_id, grant_id, count(*), count(completed_at), count(DISTINCT path),"
        " coalesce(sum(bytes_sent), 0), count(DISTINCT token_id)"
        f" FROM download GROUP BY {day}, track_id, grant_id"
    )
    op.execute("UPDATE download SET counted_at = started_at")


def downgrade() -> None:
    op.drop_index("ix_download_uncounted", table_name="download")
    op.drop_index("ix_download_grant_id", table_name="download")
    op.create_index("ix_download_grant_id", "download", ["grant_id"])
    op.drop_column("download", "counted_at")  # not by a copy: transfers refer to this table
    op.drop_table("download_day")
