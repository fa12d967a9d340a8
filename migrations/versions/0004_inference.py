"""inference.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op


revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "inference_meter",
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("minute_requests", sa.BigInteger(), nullable=False),
        sa.Column("minute_tokens", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.DateTime(timezone=True), nullable=False),
        sa.Column("day_tokens", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("holder", name=op.f("pk_inference_meter")),
    )
    op.create_table(
        "inference_limits",
        sa.Column("grant_id", sa.String(length=40), nullable=False),
        sa.Column("limits", sa.JSON(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("set_by", sa.String(length=40), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["grant_id"],
            ["access_grant.id"],
            name=op.f("fk_inference_limits_grant_id_access_grant"),
        ),
        sa.PrimaryKeyConstraint("grant_id", name=op.f("pk_inference_limits")),
    )
    op.create_table(
        "inference_request",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("grant_id", sa.String(length=40), nullable=True),
        sa.Column("person_id", sa.String(length=40), nullable=True),
        sa.Column("token_id", sa.String(length=40), nullable=True),
        sa.Column("track_id", sa.String(length=40), nullable=True),
        sa.Column("revision_id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("sequences", sa.Integer(), nullable=False),
        sa.Column("reserved_tokens", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.String(length=32), nullable=True),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("milliseconds", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["grant_id"],
            ["access_grant.id"],
            name=op.f("fk_inference_request_grant_id_access_grant"),
        ),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_inference_request_person_id_person")
        ),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revision.id"], name=op.f("fk_inference_request_revision_id_revision")
        ),
        sa.ForeignKeyConstraint(
            ["token_id"], ["api_token.id"], name=op.f("fk_inference_request_token_id_api_token")
        ),
        sa.ForeignKeyConstraint(
            ["track_id"], ["track.id"], name=op.f("fk_inference_request_track_id_track")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inference_request")),
    )
    with op.batch_alter_table("inference_request", schema=None) as batch_op:
        batch_op.create_index(
            "ix_inference_request_grant_id", ["grant_id", "started_at"], unique=False
        )
        batch_op.create_index("ix_inference_request_lost", ["ended_at", "expires_at"], unique=False)
        batch_op.create_index(
            "ix_inference_request_running", ["holder", "ended_at", "expires_at"], unique=False
        )
        batch_op.create_index("ix_inference_request_started_at", ["started_at"], unique=False)

    op.create_table(
        "inference_prompt",
        sa.Column("request_id", sa.String(length=40), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("kept_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("erase_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["inference_request.id"],
            name=op.f("fk_inference_prompt_request_id_inference_request"),
        ),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_inference_prompt")),
    )
    with op.batch_alter_table("inference_prompt", schema=None) as batch_op:
        batch_op.create_index("ix_inference_prompt_erase_at", ["erase_at"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("inference_prompt", schema=None) as batch_op:
        batch_op.drop_index("ix_inference_prompt_erase_at")

    op.drop_table("inference_prompt")
    with op.batch_alter_table("inference_request", schema=None) as batch_op:
        batch_op.drop_index("ix_inference_request_started_at")
        batch_op.drop_index("ix_inference_request_running")
        batch_op.drop_index("ix_inference_request_lost")
        batch_op.drop_index("ix_inference_request_grant_id")

    op.drop_table("inference_request")
    op.drop_table("inference_limits")
    op.drop_table("inference_meter")
