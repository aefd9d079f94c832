-- Chores on the store, and alarms. state/chore_tables.py says what each column is for.

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

-- The desk of admins, where the role is there.
DO $$
BEGIN
    IF to_regclass('codepods_admin.pod') IS NOT NULL THEN
        PERFORM open_table_to_admins('chore', '{}');
        PERFORM open_table_to_admins('alarm', '{}');
    END IF;
END
$$;
