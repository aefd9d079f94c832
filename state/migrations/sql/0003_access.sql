-- Sessions of browsers that were ended before their time. state/revocation_tables.py says what each column is for.

CREATE TABLE revocation (
    kind text NOT NULL,
    subject text NOT NULL,
    revoked_at timestamptz DEFAULT now() NOT NULL,
    expires_at timestamptz NOT NULL,
    actor text NOT NULL,
    reason text,
    PRIMARY KEY (kind, subject),
    CONSTRAINT revocation_kind_is_key_pod_session_or_user CHECK (kind IN ('key', 'pod', 'session', 'user')),
    CONSTRAINT revocation_subject_is_1_to_256_characters CHECK (length(subject) BETWEEN 1 AND 256),
    CONSTRAINT revocation_reason_is_at_most_500_characters CHECK (length(reason) <= 500),
    CONSTRAINT revocation_ends_after_it_began CHECK (expires_at > revoked_at)
);

CREATE TRIGGER revocation_owner BEFORE INSERT OR UPDATE OR DELETE ON revocation
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('api');

-- The desk of admins, where the role is there.
DO $$
BEGIN
    IF to_regclass('codepods_admin.pod') IS NOT NULL THEN
        PERFORM open_table_to_admins('revocation', '{}');
    END IF;
END
$$;
