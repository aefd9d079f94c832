-- Who is in the pods, and how long they may go on like that. state/presence_tables.py says what each column is for.
--
-- Presence is told every half a minute and is never in `pod`; the policies have an index of their own over what is
-- due to be looked at, so that a pass over nothing reads nothing.

-- ---- what is set -------------------------------------------------------------------------------------------------

-- NULL: as for the user, or the installation. 0: without a limit.
ALTER TABLE pod
    ADD COLUMN closed_grace_s integer,
    ADD COLUMN idle_limit_s integer,
    ADD COLUMN lifetime_s integer,
    ADD COLUMN archive_after_s integer,
    ADD COLUMN keep_until timestamptz,
    ADD CONSTRAINT pod_closed_grace_s_is_0_to_one_year CHECK (closed_grace_s BETWEEN 0 AND 31536000),
    ADD CONSTRAINT pod_idle_limit_s_is_0_to_one_year CHECK (idle_limit_s BETWEEN 0 AND 31536000),
    ADD CONSTRAINT pod_lifetime_s_is_0_to_one_year CHECK (lifetime_s BETWEEN 0 AND 31536000),
    ADD CONSTRAINT pod_archive_after_s_is_0_to_one_year CHECK (archive_after_s BETWEEN 0 AND 31536000);

ALTER TABLE workspace
    ADD COLUMN closed_grace_s integer,
    ADD COLUMN idle_limit_s integer,
    ADD COLUMN lifetime_s integer,
    ADD COLUMN archive_after_s integer,
    ADD CONSTRAINT workspace_closed_grace_s_is_0_to_one_year CHECK (closed_grace_s BETWEEN 0 AND 31536000),
    ADD CONSTRAINT workspace_idle_limit_s_is_0_to_one_year CHECK (idle_limit_s BETWEEN 0 AND 31536000),
    ADD CONSTRAINT workspace_lifetime_s_is_0_to_one_year CHECK (lifetime_s BETWEEN 0 AND 31536000),
    ADD CONSTRAINT workspace_archive_after_s_is_0_to_one_year CHECK (archive_after_s BETWEEN 0 AND 31536000);

CREATE TABLE pod_presence (
    pod_id text NOT NULL,
    node_id text NOT NULL,
    epoch bigint NOT NULL,
    started_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    connections integer DEFAULT 0 NOT NULL,
    connected_at timestamptz,
    gone_at timestamptz,
    heartbeat_at timestamptz,
    active_at timestamptz,
    busy boolean DEFAULT false NOT NULL,
    busy_at timestamptz,
    busy_with text DEFAULT '' NOT NULL,
    cpu_millis integer DEFAULT 0 NOT NULL,
    look_asked_at timestamptz,
    PRIMARY KEY (pod_id),
    FOREIGN KEY(pod_id) REFERENCES pod (id),
    FOREIGN KEY(node_id) REFERENCES node (id)
) WITH (fillfactor = 80);
CREATE INDEX pod_presence_asked ON pod_presence (node_id) WHERE look_asked_at IS NOT NULL;

CREATE TABLE pod_policy (
    pod_id text NOT NULL,
    next_look_at timestamptz,
    rule text,
    reason text,
    stops_at timestamptz,
    warned_at timestamptz,
    can_extend boolean DEFAULT true NOT NULL,
    PRIMARY KEY (pod_id),
    CONSTRAINT pod_policy_rule_is_a_known_rule CHECK (rule IN ('closed', 'idle', 'busy', 'lifetime', 'archive')),
    FOREIGN KEY(pod_id) REFERENCES pod (id)
) WITH (fillfactor = 80);
CREATE INDEX pod_policy_due ON pod_policy (next_look_at) WHERE next_look_at IS NOT NULL;
CREATE INDEX pod_policy_warned ON pod_policy (pod_id) WHERE warned_at IS NOT NULL;

INSERT INTO pod_policy (pod_id, next_look_at) SELECT id, now() FROM pod;

CREATE TRIGGER pod_presence_owner BEFORE INSERT OR UPDATE OR DELETE ON pod_presence
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('reconciler');

-- Triggers below write pod_policy for whoever changes a pod, so the guard is on who else would.
CREATE FUNCTION pod_policy_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF session_is('reconciler') OR pg_trigger_depth() > 1 THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'insufficient_privilege', TABLE = 'pod_policy',
        MESSAGE = 'table pod_policy is written by the reconciler only',
        DETAIL = 'It holds what the policies last decided, and they decide it again.',
        HINT = 'Set pod.keep_until, or a limit: pod.idle_limit_s, workspace.idle_limit_s, … docs/presence.md has them all.';
END
$$;
CREATE TRIGGER pod_policy_owner BEFORE INSERT OR UPDATE OR DELETE ON pod_policy
    FOR EACH STATEMENT EXECUTE FUNCTION pod_policy_guard();

-- ---- what makes a pod due to be looked at ---------------------------------------------------------------------------

-- With its owner's rights: admins and the API change pods, and may not write here.
CREATE FUNCTION look_at_pod() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    looked_at constant text := CASE TG_TABLE_NAME WHEN 'pod' THEN to_jsonb(NEW) ->> 'id' ELSE to_jsonb(NEW) ->> 'pod_id' END;
BEGIN
    INSERT INTO pod_policy (pod_id, next_look_at) VALUES (looked_at, clock_timestamp())
        ON CONFLICT (pod_id) DO UPDATE SET next_look_at = least(pod_policy.next_look_at, excluded.next_look_at);
    RETURN NULL;
END
$$;

CREATE TRIGGER pod_look_at_new AFTER INSERT ON pod FOR EACH ROW EXECUTE FUNCTION look_at_pod();
CREATE TRIGGER pod_look_at_wished AFTER UPDATE ON pod FOR EACH ROW
    WHEN (NEW.generation <> OLD.generation) EXECUTE FUNCTION look_at_pod();
CREATE TRIGGER pod_observed_look_at_new AFTER INSERT ON pod_observed FOR EACH ROW EXECUTE FUNCTION look_at_pod();
CREATE TRIGGER pod_observed_look_at AFTER UPDATE ON pod_observed FOR EACH ROW
    WHEN ((OLD.state, OLD.node_id, OLD.epoch, OLD.started_at) IS DISTINCT FROM
        (NEW.state, NEW.node_id, NEW.epoch, NEW.started_at)) EXECUTE FUNCTION look_at_pod();

-- ---- limits of pods are desired columns -----------------------------------------------------------------------------

-- After pod_before_update, whose name sorts before it, and which counts the generation when other columns change too.
CREATE FUNCTION pod_limits_before_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.desired_state = 'deleted' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', TABLE = 'pod',
            MESSAGE = 'a deleted pod cannot be changed', HINT = 'Open a new pod for the same user.';
    END IF;
    -- What somebody answered in an editor arrives with the node's presence.
    IF session_is('reconciler') AND NOT session_is('api') AND session_actor() NOT LIKE 'editor:%' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege', TABLE = 'pod',
            MESSAGE = 'the reconciler does not change how long pods may run';
    END IF;
    IF session_is_person() AND NEW.desired_reason IS NOT DISTINCT FROM OLD.desired_reason THEN
        NEW.desired_reason := format('changed in SQL by %s', session_actor());
    END IF;
    -- Not desired_at: limits count from what was wished of the pod, and these are no such wish.
    NEW.generation := OLD.generation + 1;
    NEW.next_check_at := now();
    RETURN NEW;
END
$$;

CREATE TRIGGER pod_before_update_of_limits BEFORE UPDATE ON pod FOR EACH ROW
    WHEN ((OLD.closed_grace_s, OLD.idle_limit_s, OLD.lifetime_s, OLD.archive_after_s, OLD.keep_until) IS DISTINCT FROM
        (NEW.closed_grace_s, NEW.idle_limit_s, NEW.lifetime_s, NEW.archive_after_s, NEW.keep_until))
    EXECUTE FUNCTION pod_limits_before_update();

CREATE TRIGGER pod_ring_for_limits AFTER UPDATE OF closed_grace_s, idle_limit_s, lifetime_s, archive_after_s, keep_until
    ON pod FOR EACH STATEMENT EXECUTE FUNCTION ring_desired();

CREATE OR REPLACE FUNCTION pod_desired_columns(pod pod) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('desired_state', pod.desired_state, 'asked_again', pod.asked_again, 'image', pod.image,
        'lab', pod.lab, 'cpu_millis', pod.cpu_millis, 'memory_mib', pod.memory_mib, 'pids', pod.pids, 'failover', pod.failover,
        'closed_grace_s', pod.closed_grace_s, 'idle_limit_s', pod.idle_limit_s, 'lifetime_s', pod.lifetime_s,
        'archive_after_s', pod.archive_after_s, 'keep_until', pod.keep_until)
$$;

-- ---- limits of users ------------------------------------------------------------------------------------------------

DROP TRIGGER workspace_update_owner ON workspace;

-- People set limits; the rest of a workspace is the reconciler's, the API's where it sets limits for them.
CREATE FUNCTION workspace_update_owner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF session_is('reconciler') THEN
        RETURN NEW;
    END IF;
    IF (to_jsonb(NEW) - '{closed_grace_s, idle_limit_s, lifetime_s, archive_after_s}'::text[])
        <> (to_jsonb(OLD) - '{closed_grace_s, idle_limit_s, lifetime_s, archive_after_s}'::text[]) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege', TABLE = 'workspace',
            MESSAGE = 'table workspace is written by the reconciler only',
            DETAIL = 'It holds what the system did or saw, and an edit by hand would make it believe what is not so.',
            HINT = 'Say what you want instead: UPDATE pod SET desired_state = …. Here only closed_grace_s, idle_limit_s, '
                'lifetime_s and archive_after_s may be edited.';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER workspace_update_owner BEFORE UPDATE ON workspace
    FOR EACH ROW EXECUTE FUNCTION workspace_update_owner();

-- With its owner's rights, for admins may not write history.
CREATE FUNCTION workspace_limits_changed() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO event (actor, kind, workspace_id, detail)
    SELECT session_actor(), 'limits', NEW.id, jsonb_build_object('changed', jsonb_object_agg(
        name, jsonb_build_array(to_jsonb(OLD) -> name, to_jsonb(NEW) -> name)))
    FROM unnest(changed_columns(to_jsonb(OLD), to_jsonb(NEW))) AS name;
    UPDATE pod_policy SET next_look_at = clock_timestamp()
        WHERE pod_id IN (SELECT id FROM pod WHERE workspace_id = NEW.id ORDER BY id);
    RETURN NULL;
END
$$;
CREATE TRIGGER workspace_limits_changed AFTER UPDATE ON workspace FOR EACH ROW
    WHEN ((OLD.closed_grace_s, OLD.idle_limit_s, OLD.lifetime_s, OLD.archive_after_s) IS DISTINCT FROM
        (NEW.closed_grace_s, NEW.idle_limit_s, NEW.lifetime_s, NEW.archive_after_s))
    EXECUTE FUNCTION workspace_limits_changed();

-- ---- the desk ----------------------------------------------------------------------------------------------------------

CREATE FUNCTION desk_pod_limits_update() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    generation_after bigint;
BEGIN
    IF (NEW.closed_grace_s, NEW.idle_limit_s, NEW.lifetime_s, NEW.archive_after_s, NEW.keep_until) IS NOT DISTINCT FROM
        (OLD.closed_grace_s, OLD.idle_limit_s, OLD.lifetime_s, OLD.archive_after_s, OLD.keep_until) THEN
        RETURN NEW;
    END IF;
    UPDATE public.pod AS p SET
        closed_grace_s = CASE WHEN NEW.closed_grace_s IS DISTINCT FROM OLD.closed_grace_s
            THEN NEW.closed_grace_s ELSE p.closed_grace_s END,
        idle_limit_s = CASE WHEN NEW.idle_limit_s IS DISTINCT FROM OLD.idle_limit_s
            THEN NEW.idle_limit_s ELSE p.idle_limit_s END,
        lifetime_s = CASE WHEN NEW.lifetime_s IS DISTINCT FROM OLD.lifetime_s THEN NEW.lifetime_s ELSE p.lifetime_s END,
        archive_after_s = CASE WHEN NEW.archive_after_s IS DISTINCT FROM OLD.archive_after_s
            THEN NEW.archive_after_s ELSE p.archive_after_s END,
        keep_until = CASE WHEN NEW.keep_until IS DISTINCT FROM OLD.keep_until THEN NEW.keep_until ELSE p.keep_until END
    WHERE id = OLD.id
    RETURNING generation INTO generation_after;
    IF generation_after <> OLD.generation THEN
        PERFORM set_config('codepods.desk_changed', (current_setting('codepods.desk_changed')::bigint + 1)::text, true);
        PERFORM public.check_bulk(current_setting('codepods.desk_changed')::bigint);
    END IF;
    RETURN NEW;
END
$$;

CREATE FUNCTION desk_workspace_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE public.workspace SET closed_grace_s = NEW.closed_grace_s, idle_limit_s = NEW.idle_limit_s,
        lifetime_s = NEW.lifetime_s, archive_after_s = NEW.archive_after_s
    WHERE id = OLD.id;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION open_to_admins() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    each_table text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'codepods_admin') THEN
        BEGIN
            CREATE ROLE codepods_admin NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- another database of this server is being migrated at the same time
        END;
    END IF;
    CREATE SCHEMA IF NOT EXISTS codepods_admin;
    GRANT USAGE ON SCHEMA codepods_admin, public TO codepods_admin;
    GRANT SELECT ON pod_status, node_status TO codepods_admin;
    FOREACH each_table IN ARRAY '{placement, pod_observed, workspace_observed, node_lease, report, action, archive,
        event, api_token, leader, pod_presence, pod_policy}'::text[] LOOP
        PERFORM open_table_to_admins(each_table, '{}');
    END LOOP;
    PERFORM open_table_to_admins('pod', '{desired_state, desired_reason, asked_again, image, lab, cpu_millis, memory_mib,
        pids, failover, closed_grace_s, idle_limit_s, lifetime_s, archive_after_s, keep_until}');
    PERFORM open_table_to_admins('workspace', '{closed_grace_s, idle_limit_s, lifetime_s, archive_after_s}');
    PERFORM open_table_to_admins('node', '{cordoned}');
    CREATE TRIGGER desk_0_begin BEFORE UPDATE ON codepods_admin.pod
        FOR EACH STATEMENT EXECUTE FUNCTION desk_pod_begin();
    CREATE TRIGGER desk_2_write INSTEAD OF UPDATE ON codepods_admin.pod
        FOR EACH ROW EXECUTE FUNCTION desk_pod_update();
    CREATE TRIGGER desk_3_limits INSTEAD OF UPDATE ON codepods_admin.pod
        FOR EACH ROW EXECUTE FUNCTION desk_pod_limits_update();
    CREATE TRIGGER desk_2_write INSTEAD OF UPDATE ON codepods_admin.workspace
        FOR EACH ROW EXECUTE FUNCTION desk_workspace_update();
    CREATE TRIGGER desk_2_write INSTEAD OF UPDATE ON codepods_admin.node
        FOR EACH ROW EXECUTE FUNCTION desk_node_update();
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'no role codepods_admin, for this database user may not make it: %', SQLERRM
        USING HINT = 'Admins who use SQL need it: let the DBA run CREATE ROLE codepods_admin and '
            'GRANT CREATE ON DATABASE … TO this user, then start codepods again.';
END
$$;

SELECT open_to_admins();
