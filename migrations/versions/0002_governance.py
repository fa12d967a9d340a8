"""governance.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op


revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "access_form",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("slug", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_by", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_form")),
        sa.UniqueConstraint("slug", "version", name=op.f("uq_access_form_slug_version")),
    )
    op.create_table(
        "hourly_count",
        sa.Column("key", sa.String(length=96), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", "hour", name=op.f("pk_hourly_count")),
    )
    with op.batch_alter_table("hourly_count", schema=None) as batch_op:
        batch_op.create_index("ix_hourly_count_hour", ["hour"], unique=False)

    op.create_table(
        "incident",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=True),
        sa.Column("blocking", sa.Boolean(), nullable=False),
        sa.Column("actor_tier", sa.Integer(), nullable=True),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("public_summary", sa.String(length=500), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("public_outcome", sa.String(length=500), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incident")),
    )
    with op.batch_alter_table("incident", schema=None) as batch_op:
        batch_op.create_index("ix_incident_blocking", ["blocking", "state"], unique=False)
        batch_op.create_index("ix_incident_confirmed_at", ["confirmed_at", "id"], unique=False)
        batch_op.create_index("ix_incident_severity", ["severity", "id"], unique=False)
        batch_op.create_index("ix_incident_state", ["state", "id"], unique=False)

    op.create_table(
        "incident_throttle_salt",
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("salt", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("hour", name=op.f("pk_incident_throttle_salt")),
    )
    op.create_table(
        "signing_key",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("pem", sa.Text(), nullable=False),
        sa.Column("pem_sha256", sa.String(length=64), nullable=False),
        sa.Column("curve", sa.String(length=16), nullable=False),
        sa.Column("added_by", sa.String(length=40), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("compromised", sa.Boolean(), nullable=False),
        sa.Column("leaf_idx", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_key")),
        sa.UniqueConstraint("pem_sha256", name=op.f("uq_signing_key_pem_sha256")),
    )
    op.create_table(
        "webhook",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("url", sa.String(length=500), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("old_secret", sa.LargeBinary(), nullable=True),
        sa.Column("old_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_by", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_for", sa.String(length=300), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook")),
    )
    op.create_table(
        "advisory",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("incident_id", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_by", sa.String(length=40), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leaf_idx", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incident.id"], name=op.f("fk_advisory_incident_id_incident")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_advisory")),
    )
    with op.batch_alter_table("advisory", schema=None) as batch_op:
        batch_op.create_index("ix_advisory_incident_id", ["incident_id", "id"], unique=False)

    op.create_table(
        "blob_reference",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=120), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["sha256"], ["blob.sha256"], name=op.f("fk_blob_reference_sha256_blob")
        ),
        sa.PrimaryKeyConstraint("sha256", "owner", name=op.f("pk_blob_reference")),
    )
    op.create_table(
        "coordination_record",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("family_id", sa.String(length=64), nullable=False),
        sa.Column("developer", sa.String(length=200), nullable=False),
        sa.Column("claim", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("size_parameters", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("happened_on", sa.DateTime(timezone=True), nullable=False),
        sa.Column("happened_precision", sa.String(length=8), nullable=False),
        sa.Column("contacted_on", sa.DateTime(timezone=True), nullable=True),
        sa.Column("window_ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("fact_status", sa.String(length=16), nullable=False),
        sa.Column("created_by", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["family_id"], ["family.id"], name=op.f("fk_coordination_record_family_id_family")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_coordination_record")),
    )
    with op.batch_alter_table("coordination_record", schema=None) as batch_op:
        batch_op.create_index("ix_coordination_record_family_id", ["family_id", "id"], unique=False)

    op.create_table(
        "evidence",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("unit", sa.String(length=32), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=True),
        sa.Column("interval_low", sa.Double(), nullable=True),
        sa.Column("interval_high", sa.Double(), nullable=True),
        sa.Column("interval_level", sa.Double(), nullable=True),
        sa.Column("conditions", sa.JSON(), nullable=False),
        sa.Column("companions", sa.JSON(), nullable=False),
        sa.Column("verdict", sa.String(length=40), nullable=True),
        sa.Column("finding", sa.Text(), nullable=True),
        sa.Column("caveat", sa.Text(), nullable=False),
        sa.Column("subject_sha256", sa.String(length=64), nullable=False),
        sa.Column("subject_kind", sa.String(length=16), nullable=False),
        sa.Column("fact_status", sa.String(length=16), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("organisation_id", sa.String(length=40), nullable=True),
        sa.Column("author_name", sa.String(length=200), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("public_approved_by", sa.String(length=40), nullable=True),
        sa.Column("public_approved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("supersedes_id", sa.String(length=40), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=False),
        sa.Column("created_by", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("accepted_by", sa.String(length=40), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["accepted_by"], ["person.id"], name=op.f("fk_evidence_accepted_by_person")
        ),
        sa.ForeignKeyConstraint(
            ["organisation_id"],
            ["organisation.id"],
            name=op.f("fk_evidence_organisation_id_organisation"),
        ),
        sa.ForeignKeyConstraint(
            ["public_approved_by"],
            ["person.id"],
            name=op.f("fk_evidence_public_approved_by_person"),
        ),
        sa.ForeignKeyConstraint(
            ["supersedes_id"], ["evidence.id"], name=op.f("fk_evidence_supersedes_id_evidence")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evidence")),
    )
    with op.batch_alter_table("evidence", schema=None) as batch_op:
        batch_op.create_index(
            "ix_evidence_organisation_id", ["organisation_id", "id"], unique=False
        )
        batch_op.create_index("ix_evidence_public", ["public", "state", "id"], unique=False)
        batch_op.create_index("ix_evidence_state", ["state", "id"], unique=False)
        batch_op.create_index("ix_evidence_subject_sha256", ["subject_sha256", "id"], unique=False)
        batch_op.create_index("ix_evidence_supersedes_id", ["supersedes_id"], unique=False)
        batch_op.create_index("ix_evidence_type", ["type", "id"], unique=False)

    op.create_table(
        "incident_close_consent",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("incident_id", sa.Integer(), nullable=False),
        sa.Column("round", sa.String(length=40), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("public_outcome", sa.String(length=500), nullable=False),
        sa.Column("outcome_sha256", sa.String(length=64), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leaf_idx", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["incident_id"],
            ["incident.id"],
            name=op.f("fk_incident_close_consent_incident_id_incident"),
        ),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_incident_close_consent_person_id_person")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incident_close_consent")),
        sa.UniqueConstraint(
            "incident_id",
            "round",
            "outcome_sha256",
            "person_id",
            name=op.f("uq_incident_close_consent_incident_id_round_outcome_sha256_person_id"),
        ),
    )
    op.create_table(
        "incident_event",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("incident_id", sa.Integer(), nullable=False),
        sa.Column("from_state", sa.String(length=16), nullable=True),
        sa.Column("to_state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.String(length=40), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leaf_idx", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incident.id"], name=op.f("fk_incident_event_incident_id_incident")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incident_event")),
    )
    with op.batch_alter_table("incident_event", schema=None) as batch_op:
        batch_op.create_index(
            "ix_incident_event_incident_id", ["incident_id", "leaf_idx"], unique=False
        )

    op.create_table(
        "incident_family",
        sa.Column("incident_id", sa.Integer(), nullable=False),
        sa.Column("family_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["family_id"], ["family.id"], name=op.f("fk_incident_family_family_id_family")
        ),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incident.id"], name=op.f("fk_incident_family_incident_id_incident")
        ),
        sa.PrimaryKeyConstraint("incident_id", "family_id", name=op.f("pk_incident_family")),
    )
    with op.batch_alter_table("incident_family", schema=None) as batch_op:
        batch_op.create_index("ix_incident_family_family_id", ["family_id"], unique=False)

    op.create_table(
        "incident_hold",
        sa.Column("incident_id", sa.Integer(), nullable=False),
        sa.Column("hold_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["hold_id"], ["hold.id"], name=op.f("fk_incident_hold_hold_id_hold")
        ),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incident.id"], name=op.f("fk_incident_hold_incident_id_incident")
        ),
        sa.PrimaryKeyConstraint("incident_id", "hold_id", name=op.f("pk_incident_hold")),
    )
    with op.batch_alter_table("incident_hold", schema=None) as batch_op:
        batch_op.create_index("ix_incident_hold_hold_id", ["hold_id"], unique=False)

    op.create_table(
        "incident_report",
        sa.Column("incident_id", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("about", sa.String(length=200), nullable=False),
        sa.Column("contact", sa.String(length=320), nullable=True),
        sa.Column("reporter_id", sa.String(length=40), nullable=True),
        sa.Column("secret_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incident.id"], name=op.f("fk_incident_report_incident_id_incident")
        ),
        sa.ForeignKeyConstraint(
            ["reporter_id"], ["person.id"], name=op.f("fk_incident_report_reporter_id_person")
        ),
        sa.PrimaryKeyConstraint("incident_id", name=op.f("pk_incident_report")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_incident_report_secret_sha256")),
    )
    op.create_table(
        "incident_update",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("incident_id", sa.Integer(), nullable=False),
        sa.Column("visibility", sa.String(length=16), nullable=False),
        sa.Column("written_by", sa.String(length=16), nullable=False),
        sa.Column("author_id", sa.String(length=40), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leaf_idx", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incident.id"], name=op.f("fk_incident_update_incident_id_incident")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incident_update")),
    )
    with op.batch_alter_table("incident_update", schema=None) as batch_op:
        batch_op.create_index(
            "ix_incident_update_incident_id", ["incident_id", "visibility", "id"], unique=False
        )

    op.create_table(
        "mail_bounce",
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("address_sha256", sa.String(length=64), nullable=False),
        sa.Column("answer", sa.String(length=300), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_mail_bounce_person_id_person")
        ),
        sa.PrimaryKeyConstraint("person_id", name=op.f("pk_mail_bounce")),
    )
    op.create_table(
        "mail_link",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("purpose", sa.String(length=40), nullable=False),
        sa.Column("subject", sa.String(length=100), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=True),
        sa.Column("address", sa.String(length=320), nullable=True),
        sa.Column("network", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_mail_link_person_id_person")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mail_link")),
    )
    with op.batch_alter_table("mail_link", schema=None) as batch_op:
        batch_op.create_index(
            "ix_mail_link_address", ["address", "purpose", "created_at"], unique=False
        )
        batch_op.create_index("ix_mail_link_expires_at", ["expires_at"], unique=False)
        batch_op.create_index(
            "ix_mail_link_network", ["network", "purpose", "created_at"], unique=False
        )

    op.create_table(
        "notice_choice",
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("notice_group", sa.String(length=32), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("chosen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_notice_choice_person_id_person")
        ),
        sa.PrimaryKeyConstraint("person_id", "notice_group", name=op.f("pk_notice_choice")),
    )
    op.create_table(
        "plan_proposal",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("slug", sa.String(length=64), nullable=False),
        sa.Column("base_version", sa.Integer(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("rationale", sa.Text(), nullable=False),
        sa.Column("proposed_by", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("plan_version_id", sa.String(length=40), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("leaf_idx", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["plan_version_id"],
            ["plan_version.id"],
            name=op.f("fk_plan_proposal_plan_version_id_plan_version"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plan_proposal")),
    )
    with op.batch_alter_table("plan_proposal", schema=None) as batch_op:
        batch_op.create_index("ix_plan_proposal_state", ["state", "expires_at"], unique=False)

    op.create_table(
        "session",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("step_up_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_session_person_id_person")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session")),
        sa.UniqueConstraint("sha256", name=op.f("uq_session_sha256")),
    )
    with op.batch_alter_table("session", schema=None) as batch_op:
        batch_op.create_index("ix_session_expires_at", ["expires_at"], unique=False)
        batch_op.create_index("ix_session_person_id", ["person_id"], unique=False)

    op.create_table(
        "webhook_delivery",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("webhook_id", sa.String(length=40), nullable=False),
        sa.Column("event_id", sa.String(length=40), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tried_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("milliseconds", sa.Integer(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhook.id"], name=op.f("fk_webhook_delivery_webhook_id_webhook")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_delivery")),
        sa.UniqueConstraint(
            "webhook_id", "event_id", name=op.f("uq_webhook_delivery_webhook_id_event_id")
        ),
    )
    with op.batch_alter_table("webhook_delivery", schema=None) as batch_op:
        batch_op.create_index("ix_webhook_delivery_webhook_id", ["webhook_id", "id"], unique=False)

    op.create_table(
        "access_form_use",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("form_id", sa.String(length=40), nullable=False),
        sa.Column("variant_id", sa.String(length=40), nullable=True),
        sa.Column("stage", sa.String(length=64), nullable=True),
        sa.Column("from_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("applied_by", sa.String(length=40), nullable=False),
        sa.Column("leaf_idx", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["form_id"], ["access_form.id"], name=op.f("fk_access_form_use_form_id_access_form")
        ),
        sa.ForeignKeyConstraint(
            ["variant_id"], ["variant.id"], name=op.f("fk_access_form_use_variant_id_variant")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_form_use")),
    )
    with op.batch_alter_table("access_form_use", schema=None) as batch_op:
        batch_op.create_index(
            "ix_access_form_use_variant_id", ["variant_id", "stage", "until_at"], unique=False
        )

    op.create_table(
        "advisory_receipt",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("advisory_id", sa.String(length=40), nullable=False),
        sa.Column("organisation_id", sa.String(length=40), nullable=True),
        sa.Column("person_id", sa.String(length=40), nullable=True),
        sa.Column("grant_ids", sa.JSON(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acknowledged_by", sa.String(length=40), nullable=True),
        sa.Column("leaf_idx", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "(organisation_id IS NULL) <> (person_id IS NULL)",
            name=op.f("ck_advisory_receipt_exactly_one_holder"),
        ),
        sa.ForeignKeyConstraint(
            ["acknowledged_by"],
            ["person.id"],
            name=op.f("fk_advisory_receipt_acknowledged_by_person"),
        ),
        sa.ForeignKeyConstraint(
            ["advisory_id"], ["advisory.id"], name=op.f("fk_advisory_receipt_advisory_id_advisory")
        ),
        sa.ForeignKeyConstraint(
            ["organisation_id"],
            ["organisation.id"],
            name=op.f("fk_advisory_receipt_organisation_id_organisation"),
        ),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_advisory_receipt_person_id_person")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_advisory_receipt")),
    )
    with op.batch_alter_table("advisory_receipt", schema=None) as batch_op:
        batch_op.create_index(
            "ix_advisory_receipt_advisory_id",
            ["advisory_id", "id", "acknowledged_at"],
            unique=False,
        )
        batch_op.create_index(
            "ix_advisory_receipt_organisation_id", ["organisation_id", "id"], unique=False
        )
        batch_op.create_index(
            "ix_advisory_receipt_overdue",
            ["due_at", "id"],
            unique=False,
            sqlite_where=sa.text("acknowledged_at IS NULL"),
            postgresql_where=sa.text("acknowledged_at IS NULL"),
        )
        batch_op.create_index("ix_advisory_receipt_person_id", ["person_id", "id"], unique=False)

    op.create_table(
        "coordination_event",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("record_id", sa.String(length=40), nullable=False),
        sa.Column("from_status", sa.String(length=16), nullable=True),
        sa.Column("to_status", sa.String(length=16), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.String(length=40), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leaf_idx", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["record_id"],
            ["coordination_record.id"],
            name=op.f("fk_coordination_event_record_id_coordination_record"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_coordination_event")),
    )
    with op.batch_alter_table("coordination_event", schema=None) as batch_op:
        batch_op.create_index(
            "ix_coordination_event_record_id", ["record_id", "leaf_idx"], unique=False
        )

    op.create_table(
        "evidence_attachment",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("evidence_id", sa.String(length=40), nullable=False),
        sa.Column("filename", sa.String(length=200), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("added_by", sa.String(length=40), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["evidence_id"],
            ["evidence.id"],
            name=op.f("fk_evidence_attachment_evidence_id_evidence"),
        ),
        sa.ForeignKeyConstraint(
            ["sha256"], ["blob.sha256"], name=op.f("fk_evidence_attachment_sha256_blob")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evidence_attachment")),
    )
    with op.batch_alter_table("evidence_attachment", schema=None) as batch_op:
        batch_op.create_index(
            "ix_evidence_attachment_evidence_id", ["evidence_id", "id"], unique=False
        )

    op.create_table(
        "evidence_author",
        sa.Column("evidence_id", sa.String(length=40), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(
            ["evidence_id"], ["evidence.id"], name=op.f("fk_evidence_author_evidence_id_evidence")
        ),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_evidence_author_person_id_person")
        ),
        sa.PrimaryKeyConstraint("evidence_id", "person_id", name=op.f("pk_evidence_author")),
    )
    with op.batch_alter_table("evidence_author", schema=None) as batch_op:
        batch_op.create_index(
            "ix_evidence_author_person_id", ["person_id", "evidence_id"], unique=False
        )

    op.create_table(
        "evidence_event",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("evidence_id", sa.String(length=40), nullable=False),
        sa.Column("from_state", sa.String(length=16), nullable=True),
        sa.Column("to_state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.String(length=40), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leaf_idx", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["evidence_id"], ["evidence.id"], name=op.f("fk_evidence_event_evidence_id_evidence")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evidence_event")),
    )
    with op.batch_alter_table("evidence_event", schema=None) as batch_op:
        batch_op.create_index(
            "ix_evidence_event_evidence_id", ["evidence_id", "leaf_idx"], unique=False
        )

    op.create_table(
        "incident_evidence",
        sa.Column("incident_id", sa.Integer(), nullable=False),
        sa.Column("evidence_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(
            ["evidence_id"], ["evidence.id"], name=op.f("fk_incident_evidence_evidence_id_evidence")
        ),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incident.id"], name=op.f("fk_incident_evidence_incident_id_incident")
        ),
        sa.PrimaryKeyConstraint("incident_id", "evidence_id", name=op.f("pk_incident_evidence")),
    )
    with op.batch_alter_table("incident_evidence", schema=None) as batch_op:
        batch_op.create_index("ix_incident_evidence_evidence_id", ["evidence_id"], unique=False)

    op.create_table(
        "notice",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("event_id", sa.String(length=40), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=128), nullable=False),
        sa.Column("recipient", sa.String(length=64), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=True),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("todo", sa.Text(), nullable=False),
        sa.Column("path", sa.String(length=200), nullable=False),
        sa.Column("link_id", sa.String(length=40), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["link_id"], ["mail_link.id"], name=op.f("fk_notice_link_id_mail_link")
        ),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_notice_person_id_person")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notice")),
        sa.UniqueConstraint("event_id", "recipient", name=op.f("uq_notice_event_id_recipient")),
    )
    with op.batch_alter_table("notice", schema=None) as batch_op:
        batch_op.create_index("ix_notice_person_id", ["person_id", "id"], unique=False)
        batch_op.create_index("ix_notice_state", ["state", "created_at"], unique=False)

    op.create_table(
        "plan_consent",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("proposal_id", sa.Integer(), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leaf_idx", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_plan_consent_person_id_person")
        ),
        sa.ForeignKeyConstraint(
            ["proposal_id"],
            ["plan_proposal.id"],
            name=op.f("fk_plan_consent_proposal_id_plan_proposal"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plan_consent")),
        sa.UniqueConstraint(
            "proposal_id", "person_id", name=op.f("uq_plan_consent_proposal_id_person_id")
        ),
    )
    op.create_table(
        "manifest_signature",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("revision_id", sa.String(length=40), nullable=False),
        sa.Column("manifest_sha256", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("bundle_sha256", sa.String(length=64), nullable=False),
        sa.Column("bundle_size", sa.BigInteger(), nullable=False),
        sa.Column("signed_by", sa.String(length=40), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leaf_idx", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["bundle_sha256"],
            ["blob.sha256"],
            name=op.f("fk_manifest_signature_bundle_sha256_blob"),
        ),
        sa.ForeignKeyConstraint(
            ["key_id"], ["signing_key.id"], name=op.f("fk_manifest_signature_key_id_signing_key")
        ),
        sa.ForeignKeyConstraint(
            ["revision_id"],
            ["revision.id"],
            name=op.f("fk_manifest_signature_revision_id_revision"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_manifest_signature")),
        sa.UniqueConstraint(
            "revision_id", "key_id", name=op.f("uq_manifest_signature_revision_id_key_id")
        ),
    )
    op.create_table(
        "model_card_lock",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("variant_id", sa.String(length=40), nullable=False),
        sa.Column("revision_id", sa.String(length=40), nullable=False),
        sa.Column("path", sa.String(length=400), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("locked_by", sa.String(length=40), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leaf_idx", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revision.id"], name=op.f("fk_model_card_lock_revision_id_revision")
        ),
        sa.ForeignKeyConstraint(
            ["sha256"], ["blob.sha256"], name=op.f("fk_model_card_lock_sha256_blob")
        ),
        sa.ForeignKeyConstraint(
            ["variant_id"], ["variant.id"], name=op.f("fk_model_card_lock_variant_id_variant")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_card_lock")),
        sa.UniqueConstraint(
            "variant_id", "path", "sha256", name=op.f("uq_model_card_lock_variant_id_path_sha256")
        ),
    )
    op.create_table(
        "incident_track",
        sa.Column("incident_id", sa.Integer(), nullable=False),
        sa.Column("track_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incident.id"], name=op.f("fk_incident_track_incident_id_incident")
        ),
        sa.ForeignKeyConstraint(
            ["track_id"], ["track.id"], name=op.f("fk_incident_track_track_id_track")
        ),
        sa.PrimaryKeyConstraint("incident_id", "track_id", name=op.f("pk_incident_track")),
    )
    with op.batch_alter_table("incident_track", schema=None) as batch_op:
        batch_op.create_index("ix_incident_track_track_id", ["track_id"], unique=False)

    op.create_table(
        "waiver",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("track_id", sa.String(length=40), nullable=False),
        sa.Column("stage", sa.String(length=32), nullable=False),
        sa.Column("gate", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("signed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_reason", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("leaf_idx", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["track_id"], ["track.id"], name=op.f("fk_waiver_track_id_track")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_waiver")),
    )
    with op.batch_alter_table("waiver", schema=None) as batch_op:
        batch_op.create_index("ix_waiver_track_id", ["track_id", "stage"], unique=False)

    op.create_table(
        "incident_grant",
        sa.Column("incident_id", sa.Integer(), nullable=False),
        sa.Column("grant_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(
            ["grant_id"], ["access_grant.id"], name=op.f("fk_incident_grant_grant_id_access_grant")
        ),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incident.id"], name=op.f("fk_incident_grant_incident_id_incident")
        ),
        sa.PrimaryKeyConstraint("incident_id", "grant_id", name=op.f("pk_incident_grant")),
    )
    with op.batch_alter_table("incident_grant", schema=None) as batch_op:
        batch_op.create_index("ix_incident_grant_grant_id", ["grant_id"], unique=False)

    op.create_table(
        "waiver_signature",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("waiver_id", sa.String(length=40), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leaf_idx", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_waiver_signature_person_id_person")
        ),
        sa.ForeignKeyConstraint(
            ["waiver_id"], ["waiver.id"], name=op.f("fk_waiver_signature_waiver_id_waiver")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_waiver_signature")),
        sa.UniqueConstraint(
            "waiver_id", "person_id", name=op.f("uq_waiver_signature_waiver_id_person_id")
        ),
    )
    op.create_table(
        "access_conflict",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("request_id", sa.String(length=40), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leaf_idx", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_access_conflict_person_id_person")
        ),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["access_request.id"],
            name=op.f("fk_access_conflict_request_id_access_request"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_conflict")),
        sa.UniqueConstraint(
            "request_id", "person_id", name=op.f("uq_access_conflict_request_id_person_id")
        ),
    )
    op.create_table(
        "access_draft",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(length=32), nullable=True),
        sa.Column("person_id", sa.String(length=40), nullable=True),
        sa.Column("variant_id", sa.String(length=40), nullable=False),
        sa.Column("form_id", sa.String(length=40), nullable=False),
        sa.Column("answers", sa.JSON(), nullable=False),
        sa.Column("address", sa.String(length=320), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("mailed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("request_id", sa.String(length=40), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["form_id"], ["access_form.id"], name=op.f("fk_access_draft_form_id_access_form")
        ),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_access_draft_person_id_person")
        ),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["access_request.id"],
            name=op.f("fk_access_draft_request_id_access_request"),
        ),
        sa.ForeignKeyConstraint(
            ["variant_id"], ["variant.id"], name=op.f("fk_access_draft_variant_id_variant")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_draft")),
    )
    with op.batch_alter_table("access_draft", schema=None) as batch_op:
        batch_op.create_index(
            "ix_access_draft_person_id", ["person_id", "variant_id", "state"], unique=False
        )
        batch_op.create_index("ix_access_draft_state", ["state", "expires_at"], unique=False)

    op.create_table(
        "access_note",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("request_id", sa.String(length=40), nullable=False),
        sa.Column("author_id", sa.String(length=40), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["access_request.id"],
            name=op.f("fk_access_note_request_id_access_request"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_note")),
    )
    with op.batch_alter_table("access_note", schema=None) as batch_op:
        batch_op.create_index("ix_access_note_request_id", ["request_id", "at"], unique=False)

    with op.batch_alter_table("access_grant", schema=None) as batch_op:
        batch_op.add_column(sa.Column("awaits_agreement", sa.String(length=64), nullable=True))
        batch_op.add_column(
            sa.Column("awaits_consent", sa.Boolean(), server_default=sa.false(), nullable=False)
        )
        batch_op.add_column(sa.Column("warned_days", sa.Integer(), nullable=True))
        batch_op.alter_column("signature_id", existing_type=sa.VARCHAR(length=40), nullable=True)
        batch_op.create_index("ix_access_grant_ends", ["state", "valid_until"], unique=False)

    with op.batch_alter_table("access_request", schema=None) as batch_op:
        batch_op.add_column(sa.Column("form_id", sa.String(length=40), nullable=True))
        batch_op.add_column(
            sa.Column("origin", sa.String(length=16), server_default="api", nullable=False)
        )
        batch_op.add_column(sa.Column("assignee_id", sa.String(length=40), nullable=True))
        batch_op.add_column(sa.Column("state_since", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("decision_seconds", sa.BigInteger(), nullable=True))
        batch_op.create_index(
            "ix_access_request_assignee_id",
            ["assignee_id", "state", "submitted_at", "id"],
            unique=False,
        )
        batch_op.create_index(
            "ix_access_request_decided_at", ["decided_at", "decision_seconds"], unique=False
        )
        batch_op.create_index("ix_access_request_expires_at", ["state", "expires_at"], unique=False)
        batch_op.create_index("ix_access_request_newest", ["submitted_at", "id"], unique=False)
        batch_op.create_index(
            "ix_access_request_queue", ["state", "submitted_at", "id"], unique=False
        )
        batch_op.create_foreign_key(
            batch_op.f("fk_access_request_assignee_id_person"), "person", ["assignee_id"], ["id"]
        )
        batch_op.create_foreign_key(
            batch_op.f("fk_access_request_form_id_access_form"), "access_form", ["form_id"], ["id"]
        )

    with op.batch_alter_table("access_request_event", schema=None) as batch_op:
        batch_op.add_column(sa.Column("kind", sa.String(length=24), nullable=True))

    with op.batch_alter_table("agreement_version", schema=None) as batch_op:
        batch_op.add_column(sa.Column("reconsent_until", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(
            sa.Column(
                "needs_countersignature", sa.Boolean(), server_default=sa.false(), nullable=False
            )
        )

    with op.batch_alter_table("api_token", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("end_announced_at", sa.DateTime(timezone=True), nullable=True)
        )
        batch_op.create_index("ix_api_token_expires_at", ["expires_at"], unique=False)

    with op.batch_alter_table("destruction_attestation", schema=None) as batch_op:
        batch_op.add_column(sa.Column("typed_name", sa.String(length=200), nullable=True))

    with op.batch_alter_table("membership", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("end_announced_at", sa.DateTime(timezone=True), nullable=True)
        )
        batch_op.create_index("ix_membership_ends_at", ["ends_at"], unique=False)

    with op.batch_alter_table("promotion", schema=None) as batch_op:
        batch_op.create_index("ix_promotion_state", ["state", "id"], unique=False)

    with op.batch_alter_table("revision", schema=None) as batch_op:
        batch_op.create_index("ix_revision_manifest_sha256", ["manifest_sha256"], unique=False)

    with op.batch_alter_table("role_assignment", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("end_announced_at", sa.DateTime(timezone=True), nullable=True)
        )
        batch_op.create_index("ix_role_assignment_ends_at", ["ends_at"], unique=False)

    with op.batch_alter_table("signature", schema=None) as batch_op:
        batch_op.add_column(sa.Column("countersign_leaf_idx", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("reconsent_until", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("reconsent_warned", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("client_address", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("user_agent", sa.String(length=300), nullable=True))
        batch_op.create_index("ix_signature_reconsent_until", ["reconsent_until"], unique=False)

    with op.batch_alter_table("stage_event", schema=None) as batch_op:
        batch_op.add_column(sa.Column("waived", sa.JSON(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("stage_event", schema=None) as batch_op:
        batch_op.drop_column("waived")

    with op.batch_alter_table("signature", schema=None) as batch_op:
        batch_op.drop_index("ix_signature_reconsent_until")
        batch_op.drop_column("user_agent")
        batch_op.drop_column("client_address")
        batch_op.drop_column("reconsent_warned")
        batch_op.drop_column("reconsent_until")
        batch_op.drop_column("countersign_leaf_idx")

    with op.batch_alter_table("role_assignment", schema=None) as batch_op:
        batch_op.drop_index("ix_role_assignment_ends_at")
        batch_op.drop_column("end_announced_at")

    with op.batch_alter_table("revision", schema=None) as batch_op:
        batch_op.drop_index("ix_revision_manifest_sha256")

    with op.batch_alter_table("promotion", schema=None) as batch_op:
        batch_op.drop_index("ix_promotion_state")

    with op.batch_alter_table("membership", schema=None) as batch_op:
        batch_op.drop_index("ix_membership_ends_at")
        batch_op.drop_column("end_announced_at")

    with op.batch_alter_table("destruction_attestation", schema=None) as batch_op:
        batch_op.drop_column("typed_name")

    with op.batch_alter_table("api_token", schema=None) as batch_op:
        batch_op.drop_index("ix_api_token_expires_at")
        batch_op.drop_column("end_announced_at")

    with op.batch_alter_table("agreement_version", schema=None) as batch_op:
        batch_op.drop_column("needs_countersignature")
        batch_op.drop_column("reconsent_until")

    with op.batch_alter_table("access_request_event", schema=None) as batch_op:
        batch_op.drop_column("kind")

    with op.batch_alter_table("access_request", schema=None) as batch_op:
        batch_op.drop_constraint(
            batch_op.f("fk_access_request_form_id_access_form"), type_="foreignkey"
        )
        batch_op.drop_constraint(
            batch_op.f("fk_access_request_assignee_id_person"), type_="foreignkey"
        )
        batch_op.drop_index("ix_access_request_queue")
        batch_op.drop_index("ix_access_request_newest")
        batch_op.drop_index("ix_access_request_expires_at")
        batch_op.drop_index("ix_access_request_decided_at")
        batch_op.drop_index("ix_access_request_assignee_id")
        batch_op.drop_column("decision_seconds")
        batch_op.drop_column("expires_at")
        batch_op.drop_column("state_since")
        batch_op.drop_column("assignee_id")
        batch_op.drop_column("origin")
        batch_op.drop_column("form_id")

    with op.batch_alter_table("access_grant", schema=None) as batch_op:
        batch_op.drop_index("ix_access_grant_ends")
        batch_op.alter_column("signature_id", existing_type=sa.VARCHAR(length=40), nullable=False)
        batch_op.drop_column("warned_days")
        batch_op.drop_column("awaits_consent")
        batch_op.drop_column("awaits_agreement")

    with op.batch_alter_table("access_note", schema=None) as batch_op:
        batch_op.drop_index("ix_access_note_request_id")

    op.drop_table("access_note")
    with op.batch_alter_table("access_draft", schema=None) as batch_op:
        batch_op.drop_index("ix_access_draft_state")
        batch_op.drop_index("ix_access_draft_person_id")

    op.drop_table("access_draft")
    op.drop_table("access_conflict")
    op.drop_table("waiver_signature")
    with op.batch_alter_table("incident_grant", schema=None) as batch_op:
        batch_op.drop_index("ix_incident_grant_grant_id")

    op.drop_table("incident_grant")
    with op.batch_alter_table("waiver", schema=None) as batch_op:
        batch_op.drop_index("ix_waiver_track_id")

    op.drop_table("waiver")
    with op.batch_alter_table("incident_track", schema=None) as batch_op:
        batch_op.drop_index("ix_incident_track_track_id")

    op.drop_table("incident_track")
    op.drop_table("model_card_lock")
    op.drop_table("manifest_signature")
    op.drop_table("plan_consent")
    with op.batch_alter_table("notice", schema=None) as batch_op:
        batch_op.drop_index("ix_notice_state")
        batch_op.drop_index("ix_notice_person_id")

    op.drop_table("notice")
    with op.batch_alter_table("incident_evidence", schema=None) as batch_op:
        batch_op.drop_index("ix_incident_evidence_evidence_id")

    op.drop_table("incident_evidence")
    with op.batch_alter_table("evidence_event", schema=None) as batch_op:
        batch_op.drop_index("ix_evidence_event_evidence_id")

    op.drop_table("evidence_event")
    with op.batch_alter_table("evidence_author", schema=None) as batch_op:
        batch_op.drop_index("ix_evidence_author_person_id")

    op.drop_table("evidence_author")
    with op.batch_alter_table("evidence_attachment", schema=None) as batch_op:
        batch_op.drop_index("ix_evidence_attachment_evidence_id")

    op.drop_table("evidence_attachment")
    with op.batch_alter_table("coordination_event", schema=None) as batch_op:
        batch_op.drop_index("ix_coordination_event_record_id")

    op.drop_table("coordination_event")
    with op.batch_alter_table("advisory_receipt", schema=None) as batch_op:
        batch_op.drop_index("ix_advisory_receipt_person_id")
        batch_op.drop_index(
            "ix_advisory_receipt_overdue",
            sqlite_where=sa.text("acknowledged_at IS NULL"),
            postgresql_where=sa.text("acknowledged_at IS NULL"),
        )
        batch_op.drop_index("ix_advisory_receipt_organisation_id")
        batch_op.drop_index("ix_advisory_receipt_advisory_id")

    op.drop_table("advisory_receipt")
    with op.batch_alter_table("access_form_use", schema=None) as batch_op:
        batch_op.drop_index("ix_access_form_use_variant_id")

    op.drop_table("access_form_use")
    with op.batch_alter_table("webhook_delivery", schema=None) as batch_op:
        batch_op.drop_index("ix_webhook_delivery_webhook_id")

    op.drop_table("webhook_delivery")
    with op.batch_alter_table("session", schema=None) as batch_op:
        batch_op.drop_index("ix_session_person_id")
        batch_op.drop_index("ix_session_expires_at")

    op.drop_table("session")
    with op.batch_alter_table("plan_proposal", schema=None) as batch_op:
        batch_op.drop_index("ix_plan_proposal_state")

    op.drop_table("plan_proposal")
    op.drop_table("notice_choice")
    with op.batch_alter_table("mail_link", schema=None) as batch_op:
        batch_op.drop_index("ix_mail_link_network")
        batch_op.drop_index("ix_mail_link_expires_at")
        batch_op.drop_index("ix_mail_link_address")

    op.drop_table("mail_link")
    op.drop_table("mail_bounce")
    with op.batch_alter_table("incident_update", schema=None) as batch_op:
        batch_op.drop_index("ix_incident_update_incident_id")

    op.drop_table("incident_update")
    op.drop_table("incident_report")
    with op.batch_alter_table("incident_hold", schema=None) as batch_op:
        batch_op.drop_index("ix_incident_hold_hold_id")

    op.drop_table("incident_hold")
    with op.batch_alter_table("incident_family", schema=None) as batch_op:
        batch_op.drop_index("ix_incident_family_family_id")

    op.drop_table("incident_family")
    with op.batch_alter_table("incident_event", schema=None) as batch_op:
        batch_op.drop_index("ix_incident_event_incident_id")

    op.drop_table("incident_event")
    op.drop_table("incident_close_consent")
    with op.batch_alter_table("evidence", schema=None) as batch_op:
        batch_op.drop_index("ix_evidence_type")
        batch_op.drop_index("ix_evidence_supersedes_id")
        batch_op.drop_index("ix_evidence_subject_sha256")
        batch_op.drop_index("ix_evidence_state")
        batch_op.drop_index("ix_evidence_public")
        batch_op.drop_index("ix_evidence_organisation_id")

    op.drop_table("evidence")
    with op.batch_alter_table("coordination_record", schema=None) as batch_op:
        batch_op.drop_index("ix_coordination_record_family_id")

    op.drop_table("coordination_record")
    op.drop_table("blob_reference")
    with op.batch_alter_table("advisory", schema=None) as batch_op:
        batch_op.drop_index("ix_advisory_incident_id")

    op.drop_table("advisory")
    op.drop_table("webhook")
    op.drop_table("signing_key")
    op.drop_table("incident_throttle_salt")
    with op.batch_alter_table("incident", schema=None) as batch_op:
        batch_op.drop_index("ix_incident_state")
        batch_op.drop_index("ix_incident_severity")
        batch_op.drop_index("ix_incident_confirmed_at")
        batch_op.drop_index("ix_incident_blocking")

    op.drop_table("incident")
    with op.batch_alter_table("hourly_count", schema=None) as batch_op:
        batch_op.drop_index("ix_hourly_count_hour")

    op.drop_table("hourly_count")
    op.drop_table("access_form")
