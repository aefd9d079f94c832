-- Chores on the store, alarms, generations of archives. state/chore_tables.py says what each column is for.

CREATE TABLE chore (
    id uuid NOT NULL,
    kind text NOT NULL,
    subject text NOT NULL,
    request jsonb DEFAULT '{}' NOT NULL,
    pod_id text,
    workspace_id text,
    only_node_id text,
    made_by text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    state text DEFAULT 'waiting' NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    not_before timestamptz DEFAULT now() NOT NULL,
    node_id text,
    given_at timestamptz,
    finished_at timestamptz,
    progress jsonb,
    result jsonb,
    error jsonb,
    PRIMARY KEY (id),
    CONSTRAINT chore_kind_is_lower_case_letters_and_underscores CHECK (kind ~ '^[a-z][a-z_]{0,39}$'),
    CONSTRAINT chore_state_is_waiting_given_done_failed_or_cancelled
        CHECK (state IN ('waiting', 'given', 'done', 'failed', 'cancelled')),
    CONSTRAINT chore_given_at_goes_with_given CHECK ((state = 'given') = (given_at IS NOT NULL)),
    CONSTRAINT chore_that_is_given_has_a_node CHECK (state <> 'given' OR node_id IS NOT NULL),
    CONSTRAINT chore_finished_at_is_its_end
        CHECK ((state IN ('done', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    FOREIGN KEY(pod_id) REFERENCES pod (id),
    FOREIGN KEY(workspace_id) REFERENCES workspace (id),
    FOREIGN KEY(only_node_id) REFERENCES node (id),
    FOREIGN KEY(node_id) REFERENCES node (id)
);
CREATE UNIQUE INDEX chore_one_open_per_subject ON chore (kind, subject) WHERE state IN ('waiting', 'given');
CREATE INDEX chore_of_subject ON chore (kind, subject);
CREATE INDEX chore_waiting ON chore (not_before) WHERE state = 'waiting';
CREATE INDEX chore_of_node ON chore (node_id) WHERE state = 'given';
CREATE INDEX chore_finished ON chore (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX chore_of_pod ON chore (pod_id, created_at) WHERE pod_id IS NOT NULL;

CREATE TABLE alarm (
    id bigint GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL,
    subject text NOT NULL,
    pod_id text,
    workspace_id text,
    message text NOT NULL,
    raised_at timestamptz DEFAULT now() NOT NULL,
    seen_at timestamptz DEFAULT now() NOT NULL,
    times integer DEFAULT 1 NOT NULL,
    cleared_at timestamptz,
    PRIMARY KEY (id),
    FOREIGN KEY(pod_id) REFERENCES pod (id),
    FOREIGN KEY(workspace_id) REFERENCES workspace (id)
);
CREATE UNIQUE INDEX alarm_one_open_per_subject ON alarm (kind, subject) WHERE cleared_at IS NULL;
CREATE INDEX alarm_of_pod ON alarm (pod_id) WHERE cleared_at IS NULL AND pod_id IS NOT NULL;

-- The API makes chores and cancels them; the reconciler makes them, hands them out and closes them.
CREATE TRIGGER chore_owner BEFORE INSERT OR UPDATE ON chore
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('reconciler', 'api');
CREATE TRIGGER chore_removal_owner BEFORE DELETE ON chore
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('reconciler');
CREATE TRIGGER alarm_owner BEFORE INSERT OR UPDATE OR DELETE ON alarm
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('reconciler', 'api');

-- A chore that is over stays as it is: a result that comes later is late, and is dropped.
CREATE FUNCTION chore_before_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.finished_at IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', TABLE = 'chore',
            MESSAGE = format('chore %s is %s and stays so', OLD.id, OLD.state),
            HINT = 'Make a new chore.';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER chore_before_update BEFORE UPDATE ON chore FOR EACH ROW EXECUTE FUNCTION chore_before_update();

-- Somebody may have room for it: the gateway looks, and the nodes that wait there are told.
CREATE FUNCTION ring_chores() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('codepods_actions', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER chore_ring AFTER INSERT ON chore FOR EACH STATEMENT EXECUTE FUNCTION ring_chores();

-- ---- generations of archives ----------------------------------------------------------------------------------

DROP TRIGGER archive_is_written_once ON archive;
ALTER TABLE archive
    ADD COLUMN retired_at timestamptz,
    ADD COLUMN suspect_at timestamptz,
    ADD COLUMN suspect_reason text,
    ADD COLUMN whole_at timestamptz DEFAULT now() NOT NULL,
    ADD CONSTRAINT archive_suspect_reason_goes_with_suspect_at
        CHECK ((suspect_at IS NULL) = (suspect_reason IS NULL));
UPDATE archive SET whole_at = committed_at;
CREATE INDEX archive_to_scrub ON archive (whole_at) WHERE retired_at IS NULL;

CREATE TABLE restoration (
    id bigint GENERATED ALWAYS AS IDENTITY,
    target_kind text NOT NULL,
    target_id text NOT NULL,
    workspace_id text NOT NULL,
    archive_id text,
    asked_by text NOT NULL,
    asked_at timestamptz DEFAULT now() NOT NULL,
    from_archive_id text,
    finished_at timestamptz,
    PRIMARY KEY (id),
    CONSTRAINT restoration_target_kind_is_pod_or_workspace CHECK (target_kind IN ('pod', 'workspace')),
    FOREIGN KEY(workspace_id) REFERENCES workspace (id),
    FOREIGN KEY(archive_id) REFERENCES archive (id),
    FOREIGN KEY(from_archive_id) REFERENCES archive (id)
);
CREATE UNIQUE INDEX restoration_one_open_per_target ON restoration (target_kind, target_id)
    WHERE finished_at IS NULL;
CREATE INDEX restoration_of_archive ON restoration (archive_id) WHERE finished_at IS NULL;

CREATE TABLE store_target (
    kind text NOT NULL,
    id text NOT NULL,
    check_at timestamptz,
    sweep_at timestamptz,
    PRIMARY KEY (kind, id),
    CONSTRAINT store_target_kind_is_pod_or_workspace CHECK (kind IN ('pod', 'workspace'))
);
CREATE INDEX store_target_due ON store_target (check_at) WHERE check_at IS NOT NULL;
CREATE INDEX store_target_to_sweep ON store_target (sweep_at) WHERE sweep_at IS NOT NULL;

CREATE TABLE sweep_candidate (
    key text NOT NULL,
    kind text NOT NULL,
    target_id text NOT NULL,
    size_bytes bigint NOT NULL,
    first_seen_at timestamptz DEFAULT now() NOT NULL,
    last_seen_at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (key)
);
CREATE INDEX sweep_candidate_of_target ON sweep_candidate (kind, target_id);

-- What the store has to say of itself to be this database's: no other store is ever cleared in.
CREATE TABLE installation (
    id integer NOT NULL,
    store_id text DEFAULT gen_random_uuid() NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT installation_is_one_row CHECK (id = 1)
);
INSERT INTO installation (id) VALUES (1);
INSERT INTO store_target (kind, id, check_at, sweep_at)
    SELECT DISTINCT target_kind, target, now(), now() + interval '3 days' FROM action
    WHERE verb IN ('archive_pod', 'archive_workspace');

-- An archive is what it was: only what was found out about it later changes, and where compaction put it.
CREATE TRIGGER archive_is_written_once BEFORE TRUNCATE ON archive
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting();
CREATE FUNCTION archive_before_update() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    later constant text[] := '{retired_at, suspect_at, suspect_reason, whole_at, manifest_key, manifest_digest,
        size_bytes}';
BEGIN
    IF NOT session_is('reconciler') OR to_jsonb(NEW) - later <> to_jsonb(OLD) - later THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege', TABLE = 'archive',
            MESSAGE = 'archive rows are written once: UPDATE is refused',
            DETAIL = 'History that can be edited proves nothing.',
            HINT = 'Add a new row that says what is different.';
    END IF;
    IF OLD.retired_at IS NOT NULL AND NEW.retired_at IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', TABLE = 'archive',
            MESSAGE = 'an archive that was retired stays so: its blobs may be gone';
    END IF;
    IF NEW.retired_at IS NOT NULL AND OLD.retired_at IS NULL AND (
        EXISTS (SELECT FROM pod WHERE archive_id = NEW.id AND desired_state <> 'deleted')
        OR EXISTS (SELECT FROM workspace WHERE archive_id = NEW.id AND EXISTS (
            SELECT FROM pod WHERE pod.workspace_id = workspace.id AND desired_state <> 'deleted'))) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', TABLE = 'archive',
            MESSAGE = 'an archive that something is restored from cannot be retired';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER archive_before_update BEFORE UPDATE ON archive
    FOR EACH ROW EXECUTE FUNCTION archive_before_update();

CREATE TRIGGER restoration_insert_owner BEFORE INSERT ON restoration
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('api');
CREATE TRIGGER restoration_owner BEFORE UPDATE OR DELETE ON restoration
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('reconciler');
CREATE TRIGGER sweep_candidate_owner BEFORE INSERT OR UPDATE OR DELETE ON sweep_candidate
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('reconciler');
CREATE TRIGGER installation_owner BEFORE INSERT OR UPDATE ON installation
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('reconciler');
CREATE TRIGGER installation_stays BEFORE DELETE OR TRUNCATE ON installation
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();
CREATE TRIGGER store_target_owner BEFORE INSERT OR UPDATE OR DELETE ON store_target
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('reconciler');

-- Each upload may leave something behind, and make an older archive dispensable: the target is looked at. A sweep that
-- comes before what was left is old enough finds it young, and is made again.
CREATE FUNCTION note_store_target() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO store_target AS t (kind, id, check_at, sweep_at)
    VALUES (NEW.target_kind, NEW.target, now(), now() + interval '3 days')
        ON CONFLICT (kind, id) DO UPDATE SET check_at = least(t.check_at, excluded.check_at),
            sweep_at = coalesce(t.sweep_at, excluded.sweep_at);
    RETURN NULL;
END
$$;
-- So does a copy that was made beside the steps.
CREATE FUNCTION note_archived_target() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO store_target AS t (kind, id, check_at, sweep_at)
    VALUES (NEW.target_kind, NEW.target_id, now(), now() + interval '3 days')
        ON CONFLICT (kind, id) DO UPDATE SET check_at = least(t.check_at, excluded.check_at),
            sweep_at = coalesce(t.sweep_at, excluded.sweep_at);
    RETURN NULL;
END
$$;
CREATE TRIGGER archive_store_target AFTER INSERT ON archive
    FOR EACH ROW EXECUTE FUNCTION note_archived_target();

-- What a tombstone makes dispensable is looked at too; whoever put it up.
CREATE FUNCTION note_deleted_target() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    program constant text := current_setting('codepods.program', true);
BEGIN
    PERFORM set_config('codepods.program', 'reconciler', true);
    UPDATE store_target SET check_at = now() WHERE kind = 'pod' AND id = NEW.id;
    PERFORM set_config('codepods.program', coalesce(program, ''), true);
    RETURN NULL;
END
$$;
CREATE TRIGGER pod_deleted_target AFTER UPDATE ON pod FOR EACH ROW
    WHEN (OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL) EXECUTE FUNCTION note_deleted_target();

CREATE TRIGGER action_store_target AFTER INSERT ON action FOR EACH ROW
    WHEN (NEW.verb IN ('archive_pod', 'archive_workspace')) EXECUTE FUNCTION note_store_target();

-- The desk of admins, where the role is there.
DO $$
BEGIN
    IF to_regclass('codepods_admin.pod') IS NOT NULL THEN
        PERFORM open_table_to_admins('chore', '{}');
        PERFORM open_table_to_admins('alarm', '{}');
        PERFORM open_table_to_admins('archive', '{}');
        PERFORM open_table_to_admins('restoration', '{}');
        PERFORM open_table_to_admins('store_target', '{}');
        PERFORM open_table_to_admins('sweep_candidate', '{}');
        PERFORM open_table_to_admins('installation', '{}');
    END IF;
END
$$;
