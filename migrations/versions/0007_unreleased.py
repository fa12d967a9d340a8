"""unreleased: what staff fetch of a revision on no track is a download, too.

And who entered evidence is one of its authors, so that it is looked for by them.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op


revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("download", schema=None) as batch_op:
        batch_op.alter_column("track_id", existing_type=sa.String(length=40), nullable=True)
    op.create_index("ix_evidence_created_by", "evidence", ["created_by"])


def downgrade() -> None:
    op.drop_index("ix_evidence_created_by", table_name="evidence")
    # Their entries in the log stay; the older schema has no place for the rows.
    gone = "SELECT id FROM download WHERE track_id IS NULL"
    op.execute(f"DELETE FROM transfer WHERE download_id IN ({gone})")
    op.execute("DELETE FROM download WHERE track_id IS NULL")
    with op.batch_alter_table("download", schema=None) as batch_op:
        batch_op.alter_column("track_id", existing_type=sa.String(length=40), nullable=False)
