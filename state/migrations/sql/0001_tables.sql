-- The tables. state/tables.py says what each is for and who writes each column.

CREATE TABLE node (
    id text NOT NULL,
    token_hash text NOT NULL,
    cordoned boolean DEFAULT false NOT NULL,
    address text,
    cpu_millis integer DEFAULT 0 NOT NULL,
    memory_mib integer DEFAULT 0 NOT NULL,
    facts jsonb DEFAULT '{}' NOT NULL,
    silent boolean DEFAULT false NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT node_id_is_1_to_63_lower_case_letters_digits_and_dashes CHECK (id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    CONSTRAINT node_capacity_is_not_negative CHECK (cpu_millis >= 0 AND memory_mib >= 0)
);

CREATE TABLE node_lease (
    node_id text NOT NULL,
    boot_id text NOT NULL,
    sequence bigint NOT NULL,
    last_seen_at timestamptz DEFAULT now() NOT NULL,
    engine_error text,
    former_boots jsonb DEFAULT '[]' NOT NULL,
    PRIMARY KEY (node_id),
    FOREIGN KEY(node_id) REFERENCES node (id)
) WITH (fillfactor = 80);

CREATE TABLE report (
    node_id text NOT NULL,
    boot_id text NOT NULL,
    sequence bigint NOT NULL,
    received_at timestamptz DEFAULT now() NOT NULL,
    digest text NOT NULL,
    payload jsonb NOT NULL,
    PRIMARY KEY (node_id),
    FOREIGN KEY(node_id) REFERENCES node (id)
);

CREATE TABLE archive (
    id text NOT NULL,
    target_kind text NOT NULL,
    target_id text NOT NULL,
    number bigint NOT NULL,
    epoch bigint NOT NULL,
    attempt integer NOT NULL,
    node_id text NOT NULL,
    manifest_key text NOT NULL,
    manifest_digest text NOT NULL,
    fingerprint text NOT NULL,
    size_bytes bigint NOT NULL,
    image_id text,
    live boolean DEFAULT false NOT NULL,
    notices jsonb DEFAULT '[]' NOT NULL,
    committed_at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT archive_id_is_a_dash_12_base32 CHECK (id ~ '^a-[a-z2-7]{12}$'),
    CONSTRAINT archive_target_kind_is_pod_or_workspace CHECK (target_kind IN ('pod', 'workspace')),
    CONSTRAINT archive_number_is_positive CHECK (number > 0),
    CONSTRAINT archive_size_bytes_is_not_negative CHECK (size_bytes >= 0),
    CONSTRAINT archive_number_is_used_once UNIQUE (target_kind, target_id, number),
    CONSTRAINT archive_manifest_key_is_used_once UNIQUE (manifest_key),
    FOREIGN KEY(node_id) REFERENCES node (id)
);

CREATE TABLE workspace (
    id text NOT NULL,
    user_id text NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL,
    archive_id text,
    failure jsonb,
    next_check_at timestamptz,
    created_at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT workspace_id_is_w_dash_12_base32 CHECK (id ~ '^w-[a-z2-7]{12}$'),
    CONSTRAINT workspace_user_id_is_1_to_128_letters_digits_or_dot_at_plus CHECK (user_id ~ '^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$'),
    CONSTRAINT workspace_epoch_is_not_negative CHECK (epoch >= 0),
    CONSTRAINT workspace_one_per_user UNIQUE (user_id),
    FOREIGN KEY(archive_id) REFERENCES archive (id)
);
CREATE INDEX workspace_due ON workspace (next_check_at) WHERE next_check_at IS NOT NULL;

CREATE TABLE placement (
    workspace_id text NOT NULL,
    epoch bigint NOT NULL,
    node_id text NOT NULL,
    placed_at timestamptz DEFAULT now() NOT NULL,
    released_at timestamptz,
    PRIMARY KEY (workspace_id, epoch),
    CONSTRAINT placement_epoch_is_positive CHECK (epoch > 0),
    FOREIGN KEY(workspace_id) REFERENCES workspace (id),
    FOREIGN KEY(node_id) REFERENCES node (id)
);
CREATE UNIQUE INDEX placement_current ON placement (workspace_id) WHERE released_at IS NULL;
CREATE INDEX placement_of_node ON placement (node_id) WHERE released_at IS NULL;

CREATE TABLE workspace_observed (
    workspace_id text NOT NULL,
    node_id text NOT NULL,
    epoch bigint NOT NULL,
    state text NOT NULL,
    volume text,
    fingerprint text,
    boot_id text NOT NULL,
    sequence bigint NOT NULL,
    since timestamptz DEFAULT now() NOT NULL,
    reported_at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (workspace_id),
    CONSTRAINT workspace_observed_state_is_one_that_a_node_reports CHECK (state IN ('absent', 'restoring', 'present', 'archiving')),
    FOREIGN KEY(workspace_id) REFERENCES workspace (id),
    FOREIGN KEY(node_id) REFERENCES node (id)
) WITH (fillfactor = 80);
CREATE INDEX workspace_observed_of_node ON workspace_observed (node_id);

CREATE TABLE pod (
    id text NOT NULL,
    workspace_id text NOT NULL,
    user_id text NOT NULL,
    name text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    desired_state text NOT NULL,
    desired_reason text,
    asked_again integer DEFAULT 0 NOT NULL,
    image text NOT NULL,
    lab text,
    cpu_millis integer DEFAULT 1000 NOT NULL,
    memory_mib integer DEFAULT 2048 NOT NULL,
    pids integer DEFAULT 512 NOT NULL,
    failover text DEFAULT 'wait' NOT NULL,
    generation bigint DEFAULT 1 NOT NULL,
    desired_at timestamptz DEFAULT now() NOT NULL,
    deleted_at timestamptz,
    satisfied_generation bigint DEFAULT 0 NOT NULL,
    image_id text,
    archive_id text,
    failure jsonb,
    condition text,
    reason text,
    reason_since timestamptz,
    next_check_at timestamptz,
    PRIMARY KEY (id),
    CONSTRAINT pod_id_is_p_dash_12_base32 CHECK (id ~ '^p-[a-z2-7]{12}$'),
    CONSTRAINT pod_name_is_1_to_63_lower_case_letters_digits_and_dashes CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    CONSTRAINT pod_image_is_an_image_reference CHECK (image ~ '^[A-Za-z0-9][A-Za-z0-9._/:@+-]*$'),
    CONSTRAINT pod_image_is_at_most_400_chars CHECK (length(image) <= 400),
    CONSTRAINT pod_lab_is_1_to_63_letters_digits_dot_underscore_and_dash CHECK (lab ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    CONSTRAINT pod_desired_state_is_running_stopped_archived_or_deleted CHECK (desired_state IN ('running', 'stopped', 'archived', 'deleted')),
    CONSTRAINT pod_failover_is_wait_or_from_last_archive CHECK (failover IN ('wait', 'from_last_archive')),
    CONSTRAINT pod_cpu_millis_is_100_to_64000 CHECK (cpu_millis BETWEEN 100 AND 64000),
    CONSTRAINT pod_memory_mib_is_256_to_262144 CHECK (memory_mib BETWEEN 256 AND 262144),
    CONSTRAINT pod_pids_is_256_to_32768 CHECK (pids BETWEEN 256 AND 32768),
    CONSTRAINT pod_desired_reason_is_at_most_500_characters CHECK (length(desired_reason) <= 500),
    CONSTRAINT pod_satisfied_is_not_ahead CHECK (satisfied_generation BETWEEN 0 AND generation),
    CONSTRAINT pod_deleted_at_goes_with_the_tombstone CHECK ((desired_state = 'deleted') = (deleted_at IS NOT NULL)),
    FOREIGN KEY(workspace_id) REFERENCES workspace (id),
    FOREIGN KEY(archive_id) REFERENCES archive (id)
);
CREATE INDEX pod_due ON pod (next_check_at) WHERE next_check_at IS NOT NULL;
CREATE INDEX pod_waiting_for_room ON pod (next_check_at) WHERE condition = 'waiting_for_capacity';
CREATE INDEX pod_gap ON pod (id) WHERE generation <> satisfied_generation;
CREATE INDEX pod_of_user ON pod (user_id, id);
CREATE INDEX pod_of_workspace ON pod (workspace_id);
CREATE UNIQUE INDEX pod_one_per_name ON pod (workspace_id, name) WHERE desired_state <> 'deleted';

CREATE TABLE pod_observed (
    pod_id text NOT NULL,
    node_id text NOT NULL,
    epoch bigint NOT NULL,
    generation bigint NOT NULL,
    state text NOT NULL,
    container_id text,
    image_id text,
    upstream text,
    session_secret text,
    fingerprint text,
    started_at timestamptz,
    exit_code integer,
    oom_killed boolean DEFAULT false NOT NULL,
    boot_id text NOT NULL,
    sequence bigint NOT NULL,
    since timestamptz DEFAULT now() NOT NULL,
    reported_at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (pod_id),
    CONSTRAINT pod_observed_state_is_one_that_a_node_reports CHECK (state IN ('absent', 'restoring', 'creating', 'starting', 'running', 'stopping', 'stopped', 'archiving', 'failed')),
    FOREIGN KEY(pod_id) REFERENCES pod (id),
    FOREIGN KEY(node_id) REFERENCES node (id)
) WITH (fillfactor = 80);
CREATE INDEX pod_observed_of_node ON pod_observed (node_id);

CREATE TABLE action (
    id uuid NOT NULL,
    target text NOT NULL,
    target_kind text NOT NULL,
    verb text NOT NULL,
    workspace_id text NOT NULL,
    pod_id text,
    node_id text NOT NULL,
    epoch bigint NOT NULL,
    generation bigint NOT NULL,
    attempt integer NOT NULL,
    step jsonb NOT NULL,
    reason text,
    created_at timestamptz DEFAULT now() NOT NULL,
    state text DEFAULT 'open' NOT NULL,
    sent_at timestamptz,
    finished_at timestamptz,
    progress jsonb,
    error jsonb,
    PRIMARY KEY (id),
    CONSTRAINT action_target_kind_is_pod_or_workspace CHECK (target_kind IN ('pod', 'workspace')),
    CONSTRAINT action_verb_is_a_known_verb CHECK (verb IN ('create_workspace', 'restore_workspace', 'archive_workspace', 'remove_workspace', 'create_pod', 'restore_pod', 'start_pod', 'stop_pod', 'archive_pod', 'remove_pod')),
    CONSTRAINT action_state_is_open_done_failed_or_superseded CHECK (state IN ('open', 'done', 'failed', 'superseded')),
    CONSTRAINT action_pod_id_is_of_pod_steps CHECK ((target_kind = 'pod') = (pod_id IS NOT NULL)),
    CONSTRAINT action_target_is_pod_or_workspace CHECK (target = coalesce(pod_id, workspace_id)),
    CONSTRAINT action_finished_at_is_its_end CHECK ((state = 'open') = (finished_at IS NULL)),
    CONSTRAINT action_attempt_is_used_once UNIQUE (target, attempt),
    FOREIGN KEY(workspace_id) REFERENCES workspace (id),
    FOREIGN KEY(pod_id) REFERENCES pod (id),
    FOREIGN KEY(node_id) REFERENCES node (id)
);
CREATE UNIQUE INDEX action_one_open_per_target ON action (target) WHERE state = 'open';
CREATE INDEX action_open_of_node ON action (node_id) WHERE state = 'open';

CREATE TABLE event (
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz DEFAULT clock_timestamp() NOT NULL,
    actor text NOT NULL,
    kind text NOT NULL,
    pod_id text,
    workspace_id text,
    node_id text,
    from_value text,
    to_value text,
    reason text,
    detail jsonb,
    PRIMARY KEY (id)
);
CREATE INDEX event_of_node ON event (node_id, id) WHERE node_id IS NOT NULL;
CREATE INDEX event_of_pod ON event (pod_id, id) WHERE pod_id IS NOT NULL;
CREATE INDEX event_of_workspace ON event (workspace_id, id) WHERE workspace_id IS NOT NULL;

CREATE TABLE api_token (
    id text NOT NULL,
    name text NOT NULL,
    scope text NOT NULL,
    hash text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (id),
    CONSTRAINT api_token_id_is_t_dash_12_base32 CHECK (id ~ '^t-[a-z2-7]{12}$'),
    CONSTRAINT api_token_scope_is_revpro_admin_or_read CHECK (scope IN ('revpro', 'admin', 'read')),
    CONSTRAINT api_token_hash_is_unique UNIQUE (hash)
);

CREATE TABLE leader (
    id integer NOT NULL,
    holder text NOT NULL,
    term bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT leader_is_one_row CHECK (id = 1)
);

