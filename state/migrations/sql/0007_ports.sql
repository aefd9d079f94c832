-- Ports of pods that their users have opened to others. state/port_tables.py says what each column is for.

CREATE TABLE pod_port (
    pod_id text NOT NULL,
    port integer NOT NULL,
    visibility text NOT NULL,
    link_id text NOT NULL,
    changed_at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (pod_id, port),
    CONSTRAINT pod_port_is_1_to_65535 CHECK (port BETWEEN 1 AND 65535),
    CONSTRAINT pod_port_visibility_is_link_or_public CHECK (visibility IN ('link', 'public')),
    FOREIGN KEY(pod_id) REFERENCES pod (id)
);

-- A port that is private has no row.
CREATE TRIGGER pod_port_owner BEFORE INSERT OR UPDATE OR DELETE ON pod_port
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('api');

-- What opens an application is not shown to admins.
CREATE OR REPLACE FUNCTION secret_columns(table_name text) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE table_name
        WHEN 'pod_observed' THEN '{session_secret}'
        WHEN 'node' THEN '{token_hash}'
        WHEN 'api_token' THEN '{hash}'
        WHEN 'pod_port' THEN '{link_id}'
        ELSE '{}'
    END::text[]
$$;

-- The desk of admins, where the role is there.
DO $$
BEGIN
    IF to_regclass('codepods_admin.pod') IS NOT NULL THEN
        PERFORM open_table_to_admins('pod_port', '{}');
    END IF;
END
$$;
