"""made_by: which token made a token, so that ending the one ends the other; who gave a role; what of a
download has left.

Of tokens and roles that are there already neither is known: the log says it.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op


revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("api_token", schema=None) as batch_op:
        batch_op.add_column(sa.Column("made_by", sa.String(length=40), nullable=True))
        batch_op.create_foreign_key(
            batch_op.f("fk_api_token_made_by_api_token"), "api_token", ["made_by"], ["id"]
        )
        batch_op.create_index("ix_api_token_made_by", ["made_by"])
    op.add_column("download", sa.Column("covered", sa.JSON(), nullable=True))
    with op.batch_alter_table("role_assignment", schema=None) as batch_op:
        batch_op.add_column(sa.Column("given_by", sa.String(length=40), nullable=True))
        batch_op.create_foreign_key(
            batch_op.f("fk_role_assignment_given_by_person"), "person", ["given_by"], ["id"]
        )


def downgrade() -> None:
    op.drop_column("download", "covered")
    with op.batch_alter_table("role_assignment", schema=None) as batch_op:
        batch_op.drop_constraint(
            batch_op.f("fk_role_assignment_given_by_person"), type_="foreignkey"
        )
        batch_op.drop_column("given_by")
    with op.batch_alter_table("api_token", schema=None) as batch_op:
        batch_op.drop_index("ix_api_token_made_by")
        batch_op.drop_constraint(
            batch_op.f("fk_api_token_made_by_api_token"), type_="foreignkey"
        )
        batch_op.drop_column("made_by")
