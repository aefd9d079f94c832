-- The rules that hold for whoever writes, a program or a person in psql (LAW 3, 4, 5, 9).
--
-- A session says which program it is by the setting codepods.program ('api', 'reconciler', or both with a comma),
-- and on whose behalf it acts by codepods.actor. A session that says nothing is a person.
-- These settings guard against mistakes. The wall against ill will is the grants of 0001_people.sql.

-- ---- who is asking ------------------------------------------------------------------------------------------

CREATE FUNCTION session_is(program text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT program = ANY (string_to_array(coalesce(current_setting('codepods.program', true), ''), ','))
$$;

CREATE FUNCTION session_is_person() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce(current_setting('codepods.program', true), '') = ''
$$;

-- Only who may write history anyway, which programs may and admins may not, can act in another's name.
CREATE FUNCTION session_actor() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN has_table_privilege(session_user, 'public.event', 'INSERT')
        THEN coalesce(nullif(current_setting('codepods.actor', true), ''), session_user::text)
        ELSE session_user::text
    END
$$;

CREATE FUNCTION changed_columns(before jsonb, after jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(array_agg(key ORDER BY key), '{}') FROM jsonb_each(after) WHERE value IS DISTINCT FROM before -> key
$$;

-- ---- refusals that are the same everywhere -------------------------------------------------------------------

-- For tables, or kinds of statement, that only some programs may use. Arguments: the programs.
CREATE FUNCTION written_by() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    program text;
BEGIN
    FOREACH program IN ARRAY TG_ARGV LOOP
        IF session_is(program) THEN
            RETURN NULL;
        END IF;
    END LOOP;
    RAISE EXCEPTION USING
        ERRCODE = 'insufficient_privilege',
        TABLE = TG_TABLE_NAME,
        MESSAGE = format('table %s is written by the %s only', TG_TABLE_NAME, array_to_string(TG_ARGV, ' and the ')),
        DETAIL = 'It holds what the system did or saw, and an edit by hand would make it believe what is not so.',
        HINT = 'Say what you want instead: UPDATE pod SET desired_state = …, or UPDATE node SET cordoned = …. '
            'docs/sql.md lists what may be edited.';
END
$$;

CREATE FUNCTION refuse_removal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'insufficient_privilege',
        TABLE = TG_TABLE_NAME,
        MESSAGE = format('rows of %s are never removed: %s is refused', TG_TABLE_NAME, TG_OP),
        DETAIL = 'A row that is gone says nothing about the container and the files it stood for, so nothing would '
            'ever clean them up.',
        HINT = 'To delete a pod with its container: UPDATE pod SET desired_state = ''deleted'' WHERE id = ….';
END
$$;

CREATE FUNCTION refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'insufficient_privilege',
        TABLE = TG_TABLE_NAME,
        MESSAGE = format('%s rows are written once: %s is refused', TG_TABLE_NAME, TG_OP),
        DETAIL = 'History that can be edited proves nothing.',
        HINT = 'Add a new row that says what is different.';
END
$$;

-- ---- pod ------------------------------------------------------------------------------------------------------

CREATE FUNCTION check_desired_state(wanted text, before text) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF wanted IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'not_null_violation', TABLE = 'pod', COLUMN = 'desired_state',
            MESSAGE = 'pod.desired_state cannot be NULL',
            DETAIL = 'There is no state that means "do not care": a pod is always on its way to one of four.',
            HINT = 'Use one of running, stopped, archived, deleted.';
    END IF;
    IF wanted NOT IN ('running', 'stopped', 'archived', 'deleted') THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', TABLE = 'pod', COLUMN = 'desired_state',
            CONSTRAINT = 'pod_desired_state_is_running_stopped_archived_or_deleted',
            MESSAGE = format('pod.desired_state cannot be %L', left(wanted, 40)),
            HINT = 'Use one of running, stopped, archived, deleted.';
    END IF;
    IF before = 'deleted' AND wanted <> 'deleted' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', TABLE = 'pod', COLUMN = 'desired_state',
            MESSAGE = format('a deleted pod stays deleted: it cannot become %s', wanted),
            DETAIL = 'Its container may be gone already, or go at any moment.',
            HINT = 'Open a new pod for the same user; the workspace is still there.';
    END IF;
END
$$;

CREATE FUNCTION pod_before_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM check_desired_state(NEW.desired_state, NULL);
    IF NOT session_is('reconciler') AND (NEW.satisfied_generation <> 0 OR
        num_nonnulls(NEW.image_id, NEW.archive_id, NEW.failure, NEW.condition, NEW.reason) > 0) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege', TABLE = 'pod',
            MESSAGE = 'a new pod has no history: what the reconciler decides must be left out',
            HINT = 'Leave out satisfied_generation, image_id, archive_id, failure, condition and reason.';
    END IF;
    NEW.generation := 1;
    NEW.desired_at := clock_timestamp(); -- what failed before this statement failed before this wish
    NEW.next_check_at := now(); -- due: the reconciler looks at what is due, and a bell only makes it look sooner
    NEW.deleted_at := CASE WHEN NEW.desired_state = 'deleted' THEN now() END;
    RETURN NEW;
END
$$;

CREATE FUNCTION refuse_pod_columns(columns text[], owner text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'insufficient_privilege', TABLE = 'pod', COLUMN = columns[1],
        MESSAGE = format('pod.%s belongs to %s', array_to_string(columns, ', pod.'), owner),
        DETAIL = 'Each column has one writer, so that nobody undoes what another has just decided.',
        HINT = 'People and the API change desired_state, desired_reason, asked_again, image, lab, cpu_millis, '
            'memory_mib, pids and failover; the rest follows from these.';
END
$$;

CREATE FUNCTION pod_before_update() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed text[];
    wants_anew constant boolean :=
        (NEW.desired_state, NEW.asked_again, NEW.image, NEW.lab, NEW.cpu_millis, NEW.memory_mib, NEW.pids,
            NEW.failover)
        IS DISTINCT FROM
        (OLD.desired_state, OLD.asked_again, OLD.image, OLD.lab, OLD.cpu_millis, OLD.memory_mib, OLD.pids,
            OLD.failover);
    decided constant boolean :=
        (NEW.satisfied_generation, NEW.image_id, NEW.archive_id, NEW.failure, NEW.condition, NEW.reason,
            NEW.reason_since, NEW.next_check_at)
        IS DISTINCT FROM
        (OLD.satisfied_generation, OLD.image_id, OLD.archive_id, OLD.failure, OLD.condition, OLD.reason,
            OLD.reason_since, OLD.next_check_at);
BEGIN
    IF (NEW.id, NEW.workspace_id, NEW.user_id, NEW.name, NEW.created_at)
        IS DISTINCT FROM (OLD.id, OLD.workspace_id, OLD.user_id, OLD.name, OLD.created_at) THEN
        changed := changed_columns(to_jsonb(OLD), to_jsonb(NEW));
        PERFORM refuse_pod_columns(ARRAY(SELECT unnest(changed) INTERSECT
            SELECT unnest(ARRAY['id', 'workspace_id', 'user_id', 'name', 'created_at']) ORDER BY 1),
            'the pod''s identity, which never changes');
    END IF;
    IF (NEW.generation, NEW.desired_at, NEW.deleted_at)
        IS DISTINCT FROM (OLD.generation, OLD.desired_at, OLD.deleted_at) THEN
        changed := changed_columns(to_jsonb(OLD), to_jsonb(NEW));
        PERFORM refuse_pod_columns(ARRAY(SELECT unnest(changed) INTERSECT
            SELECT unnest(ARRAY['generation', 'desired_at', 'deleted_at']) ORDER BY 1),
            'the database, which counts changes itself');
    END IF;
    IF decided AND NOT session_is('reconciler') THEN
        changed := changed_columns(to_jsonb(OLD), to_jsonb(NEW));
        PERFORM refuse_pod_columns(ARRAY(SELECT unnest(changed) INTERSECT
            SELECT unnest(ARRAY['satisfied_generation', 'image_id', 'archive_id', 'failure', 'condition', 'reason',
                'reason_since', 'next_check_at']) ORDER BY 1),
            'the reconciler');
    END IF;
    IF NOT wants_anew THEN
        RETURN NEW;
    END IF;
    PERFORM check_desired_state(NEW.desired_state, OLD.desired_state);
    IF OLD.desired_state = 'deleted' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', TABLE = 'pod',
            MESSAGE = 'a deleted pod cannot be changed', HINT = 'Open a new pod for the same user.';
    END IF;
    IF session_is('reconciler') AND NOT session_is('api') AND session_actor() NOT LIKE 'policy:%' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege', TABLE = 'pod',
            MESSAGE = 'the reconciler does not change what is desired',
            HINT = 'A lifecycle policy may: it sets codepods.actor to policy:<its name>.';
    END IF;
    -- A reason left over from the change before would be a lie about this one. Programs always give one.
    IF session_is_person() AND NEW.desired_reason IS NOT DISTINCT FROM OLD.desired_reason THEN
        NEW.desired_reason := format('changed in SQL by %s', session_actor());
    END IF;
    NEW.generation := OLD.generation + 1;
    NEW.desired_at := clock_timestamp(); -- what failed before this statement failed before this wish
    NEW.next_check_at := now();
    NEW.deleted_at := CASE WHEN NEW.desired_state = 'deleted' THEN now() END;
    RETURN NEW;
END
$$;

CREATE FUNCTION pod_desired_columns(pod pod) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('desired_state', pod.desired_state, 'asked_again', pod.asked_again, 'image', pod.image,
        'lab', pod.lab, 'cpu_millis', pod.cpu_millis, 'memory_mib', pod.memory_mib, 'pids', pod.pids, 'failover', pod.failover)
$$;

-- With its owner's rights, for admins may change a pod but not write history.
CREATE FUNCTION pod_desired_event() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    before constant jsonb := CASE WHEN TG_OP = 'UPDATE' THEN pod_desired_columns(OLD) ELSE '{}' END;
    after constant jsonb := pod_desired_columns(NEW);
BEGIN
    INSERT INTO event (actor, kind, pod_id, workspace_id, from_value, to_value, reason, detail)
    SELECT session_actor(), 'desired', NEW.id, NEW.workspace_id, before ->> 'desired_state', NEW.desired_state,
        NEW.desired_reason,
        jsonb_build_object('generation', NEW.generation, 'changed', jsonb_object_agg(
            column_name, jsonb_build_array(before -> column_name, after -> column_name)))
    FROM unnest(changed_columns(before, after)) AS column_name;
    RETURN NULL;
END
$$;

CREATE FUNCTION check_bulk(changed bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    most constant integer := coalesce(nullif(current_setting('codepods.bulk_max', true), ''), '50');
BEGIN
    IF changed > most AND coalesce(current_setting('codepods.bulk_ok', true), '') <> 'on' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'triggered_action_exception', TABLE = 'pod',
            MESSAGE = format('this statement changes more than %s pods, so it must say that it is meant', most),
            DETAIL = 'A forgotten WHERE stops or archives everybody.',
            HINT = 'BEGIN; SET LOCAL codepods.bulk_ok = ''on''; UPDATE …; COMMIT;';
    END IF;
END
$$;

CREATE FUNCTION pod_bulk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- The reconciler's own columns are none of this: it writes them for as many pods as there are.
    IF session_is('reconciler') AND session_actor() NOT LIKE 'policy:%' AND NOT session_is('api') THEN
        RETURN NULL;
    END IF;
    -- EXCEPT, for it is hashed: nothing is known of the two tables, and a join of them would be a nested loop.
    PERFORM check_bulk((SELECT count(*) FROM (
        SELECT id, generation FROM after EXCEPT SELECT id, generation FROM before) AS changed));
    RETURN NULL;
END
$$;

-- Rings the bell: it carries nothing, for whoever hears it looks at the rows (LAW 1).
CREATE FUNCTION ring_desired() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('codepods_desired', '');
    RETURN NULL;
END
$$;

CREATE TRIGGER pod_before_insert BEFORE INSERT ON pod FOR EACH ROW EXECUTE FUNCTION pod_before_insert();
CREATE TRIGGER pod_before_update BEFORE UPDATE ON pod FOR EACH ROW EXECUTE FUNCTION pod_before_update();
CREATE TRIGGER pod_event_of_insert AFTER INSERT ON pod FOR EACH ROW EXECUTE FUNCTION pod_desired_event();
CREATE TRIGGER pod_event_of_update AFTER UPDATE ON pod FOR EACH ROW
    WHEN (NEW.generation <> OLD.generation) EXECUTE FUNCTION pod_desired_event();
CREATE TRIGGER pod_bulk AFTER UPDATE ON pod REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION pod_bulk();
CREATE TRIGGER pod_ring AFTER INSERT OR UPDATE OF desired_state, asked_again, image, lab, cpu_millis, memory_mib, pids,
    failover ON pod FOR EACH STATEMENT EXECUTE FUNCTION ring_desired();
CREATE TRIGGER pod_stays BEFORE DELETE OR TRUNCATE ON pod FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();

-- ---- workspace, node --------------------------------------------------------------------------------------------

CREATE FUNCTION workspace_before_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.user_id, NEW.created_at) IS DISTINCT FROM (OLD.id, OLD.user_id, OLD.created_at) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege', TABLE = 'workspace',
            MESSAGE = 'a workspace''s id, user and time of creation never change',
            DETAIL = 'Containers, volumes and archives carry them.';
    END IF;
    IF NEW.epoch < OLD.epoch THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', TABLE = 'workspace', COLUMN = 'epoch',
            MESSAGE = format('workspace.epoch only grows: %s cannot become %s', OLD.epoch, NEW.epoch),
            DETAIL = 'Nodes refuse orders of an epoch below the highest they have seen; that is what keeps two nodes '
                'from serving the same files.';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER workspace_before_update BEFORE UPDATE ON workspace
    FOR EACH ROW EXECUTE FUNCTION workspace_before_update();
CREATE TRIGGER workspace_insert_owner BEFORE INSERT ON workspace
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('api', 'reconciler');
CREATE TRIGGER workspace_update_owner BEFORE UPDATE ON workspace
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('reconciler');
CREATE TRIGGER workspace_stays BEFORE DELETE OR TRUNCATE ON workspace
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();

CREATE FUNCTION node_before_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.created_at) IS DISTINCT FROM (OLD.id, OLD.created_at) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege', TABLE = 'node',
            MESSAGE = 'a node''s id and time of registration never change',
            HINT = 'Register a new node.';
    END IF;
    IF session_is_person() AND (to_jsonb(NEW) - 'cordoned') <> (to_jsonb(OLD) - 'cordoned') THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege', TABLE = 'node',
            MESSAGE = format('node.%s belongs to the system', array_to_string(
                array_remove(changed_columns(to_jsonb(OLD), to_jsonb(NEW)), 'cordoned'), ', node.')),
            HINT = 'People change node.cordoned; the rest is what the node says of itself.';
    END IF;
    RETURN NEW;
END
$$;

CREATE FUNCTION node_cordon_event() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO event (actor, kind, node_id, from_value, to_value)
    VALUES (session_actor(), 'cordoned', NEW.id, OLD.cordoned::text, NEW.cordoned::text);
    RETURN NULL;
END
$$;

CREATE TRIGGER node_before_update BEFORE UPDATE ON node FOR EACH ROW EXECUTE FUNCTION node_before_update();
CREATE TRIGGER node_cordon_event AFTER UPDATE ON node FOR EACH ROW
    WHEN (NEW.cordoned <> OLD.cordoned) EXECUTE FUNCTION node_cordon_event();
CREATE TRIGGER node_ring AFTER UPDATE OF cordoned ON node FOR EACH STATEMENT EXECUTE FUNCTION ring_desired();
CREATE TRIGGER node_insert_owner BEFORE INSERT ON node
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('api', 'reconciler');
CREATE TRIGGER node_stays BEFORE DELETE OR TRUNCATE ON node FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();

-- ---- room -------------------------------------------------------------------------------------------------------

-- Pods that found no node with room look again every few seconds; where room may just have appeared, at once. Only a
-- hint (LAW 1), so it may be bounded, and skip what somebody else holds. At the commit, when all other locks are held:
-- whoever waits for a row that is taken here then waits for nobody who waits for us.
CREATE FUNCTION wake_who_waits_for_room() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    woken_max constant integer := 200;
    program constant text := current_setting('codepods.program', true);
BEGIN
    PERFORM set_config('codepods.program', 'reconciler', true); -- whose column this is, whoever made the room
    UPDATE pod SET next_check_at = now() WHERE id IN (
        SELECT id FROM pod WHERE condition = 'waiting_for_capacity' AND next_check_at > now()
        ORDER BY next_check_at LIMIT woken_max FOR NO KEY UPDATE SKIP LOCKED);
    IF FOUND THEN
        PERFORM pg_notify('codepods_desired', '');
    END IF;
    PERFORM set_config('codepods.program', coalesce(program, ''), true);
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER node_room AFTER UPDATE ON node DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NOT NEW.cordoned AND (OLD.cordoned OR (OLD.silent AND NOT NEW.silent)
        OR NEW.cpu_millis > OLD.cpu_millis OR NEW.memory_mib > OLD.memory_mib))
    EXECUTE FUNCTION wake_who_waits_for_room();
CREATE CONSTRAINT TRIGGER node_lease_room AFTER UPDATE ON node_lease DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (OLD.engine_error IS NOT NULL AND NEW.engine_error IS NULL) EXECUTE FUNCTION wake_who_waits_for_room();
CREATE CONSTRAINT TRIGGER placement_room AFTER UPDATE ON placement DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (OLD.released_at IS NULL AND NEW.released_at IS NOT NULL) EXECUTE FUNCTION wake_who_waits_for_room();
-- The states in which state.snapshot counts a pod that is not wanted running.
CREATE CONSTRAINT TRIGGER pod_observed_room AFTER UPDATE ON pod_observed DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (OLD.state IN ('starting', 'running', 'stopping') AND NEW.state NOT IN ('starting', 'running', 'stopping'))
    EXECUTE FUNCTION wake_who_waits_for_room();

-- ---- what only programs write -------------------------------------------------------------------------------------

CREATE FUNCTION action_before_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'open' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', TABLE = 'action',
            MESSAGE = format('action %s is %s and stays so', OLD.id, OLD.state),
            DETAIL = 'A result that comes after its action was closed is late, and is dropped.';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER action_before_update BEFORE UPDATE ON action FOR EACH ROW EXECUTE FUNCTION action_before_update();

CREATE TRIGGER placement_owner BEFORE INSERT OR UPDATE OR DELETE ON placement
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('reconciler');
CREATE TRIGGER pod_observed_owner BEFORE INSERT OR UPDATE OR DELETE ON pod_observed
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('reconciler');
CREATE TRIGGER workspace_observed_owner BEFORE INSERT OR UPDATE OR DELETE ON workspace_observed
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('reconciler');
CREATE TRIGGER node_lease_owner BEFORE INSERT OR UPDATE OR DELETE ON node_lease
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('reconciler');
CREATE TRIGGER report_owner BEFORE INSERT OR UPDATE OR DELETE ON report
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('reconciler');
CREATE TRIGGER action_owner BEFORE INSERT OR UPDATE OR DELETE ON action
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('reconciler');
CREATE TRIGGER archive_owner BEFORE INSERT OR DELETE ON archive
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('reconciler');
CREATE TRIGGER archive_is_written_once BEFORE UPDATE OR TRUNCATE ON archive
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting();
CREATE TRIGGER leader_owner BEFORE INSERT OR UPDATE OR DELETE ON leader
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('reconciler');
CREATE TRIGGER api_token_owner BEFORE INSERT OR UPDATE OR DELETE ON api_token
    FOR EACH STATEMENT EXECUTE FUNCTION written_by('api');
CREATE TRIGGER event_is_written_once BEFORE UPDATE OR DELETE OR TRUNCATE ON event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting();
