-- What people see and may change: two views, and the role codepods_admin.

-- The same as state.model.Limits.node_silent_after; a test compares them.
CREATE FUNCTION node_silent_after() RETURNS interval LANGUAGE sql IMMUTABLE AS $$ SELECT interval '40 s' $$;

CREATE VIEW pod_status AS
SELECT
    pod.id,
    pod.user_id,
    pod.name,
    pod.desired_state,
    CASE
        WHEN silent.is AND seen.state <> 'absent' THEN 'unknown'
        WHEN seen.state <> 'absent' THEN seen.state
        WHEN pod.desired_state = 'deleted' THEN 'deleted'
        WHEN pod.archive_id IS NOT NULL THEN 'archived'
        ELSE 'absent'
    END AS actual,
    placement.node_id,
    CASE
        WHEN silent.is AND seen.state <> 'absent' THEN lease.last_seen_at
        WHEN seen.state <> 'absent' THEN observed.since
        WHEN pod.desired_state = 'deleted' THEN pod.deleted_at
        WHEN pod.archive_id IS NOT NULL THEN archive.committed_at
        ELSE coalesce(observed.since, pod.created_at)
    END AS since,
    pod.condition,
    pod.reason,
    pod.generation,
    pod.satisfied_generation
FROM pod
LEFT JOIN placement ON placement.workspace_id = pod.workspace_id AND placement.released_at IS NULL
LEFT JOIN pod_observed AS observed ON observed.pod_id = pod.id
    AND observed.node_id = placement.node_id AND observed.epoch = placement.epoch
LEFT JOIN node_lease AS lease ON lease.node_id = placement.node_id
LEFT JOIN archive ON archive.id = pod.archive_id
CROSS JOIN LATERAL (SELECT coalesce(observed.state, 'absent') AS state) AS seen
CROSS JOIN LATERAL (
    SELECT placement.node_id IS NOT NULL AND coalesce(lease.last_seen_at < now() - node_silent_after(), true) AS is
) AS silent;

COMMENT ON VIEW pod_status IS 'One line per pod: what is desired, what is, where, since when, and why';

-- reserved_*: what placement counts for pods that run or are about to (state.model.RESERVED_PER_POD; a test compares).
CREATE VIEW node_status AS
SELECT
    node.id,
    node.cordoned,
    coalesce(lease.last_seen_at < now() - node_silent_after(), true) AS silent,
    lease.last_seen_at,
    now() - lease.last_seen_at AS last_seen_ago,
    lease.engine_error,
    node.address,
    node.cpu_millis,
    node.memory_mib,
    coalesce(held.pods, 0) AS pods,
    coalesce(held.running, 0) AS running,
    coalesce(held.reserved, 0) * 200 AS reserved_cpu_millis,
    coalesce(held.reserved, 0) * 512 AS reserved_memory_mib
FROM node
LEFT JOIN node_lease AS lease ON lease.node_id = node.id
LEFT JOIN (
    SELECT
        placement.node_id,
        count(*) FILTER (WHERE observed.state <> 'absent') AS pods,
        count(*) FILTER (WHERE observed.state = 'running') AS running,
        count(*) FILTER (
            WHERE pod.desired_state = 'running' OR observed.state IN ('starting', 'running', 'stopping')
        ) AS reserved
    FROM placement
    JOIN pod ON pod.workspace_id = placement.workspace_id
    LEFT JOIN pod_observed AS observed ON observed.pod_id = pod.id
        AND observed.node_id = placement.node_id AND observed.epoch = placement.epoch
    WHERE placement.released_at IS NULL
    GROUP BY placement.node_id
) AS held ON held.node_id = node.id;

COMMENT ON VIEW node_status IS 'One line per node: heard when, what it holds, and what is reserved on it';

-- ---- the desk: what codepods_admin sees under the tables' own names ------------------------------------------------
--
-- Column grants on the tables are the wall, but PostgreSQL says no more than "permission denied for table pod" there.
-- So the role has a view of each table in a schema of its own name, which "$user" puts first on the search path. The
-- views have the invoker's rights: what they let through still meets the wall; what they refuse, they explain.
-- They also leave out the secrets, so that SELECT * works.

CREATE FUNCTION desk_write() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    may constant text[] := TG_ARGV[0]::text[];
    refused text[];
BEGIN
    IF TG_OP = 'UPDATE' THEN
        refused := ARRAY(SELECT unnest(changed_columns(to_jsonb(OLD), to_jsonb(NEW))) EXCEPT SELECT unnest(may) ORDER BY 1);
    END IF;
    IF TG_OP = 'UPDATE' AND refused = '{}' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'insufficient_privilege', TABLE = TG_TABLE_NAME,
        MESSAGE = CASE TG_OP
            WHEN 'UPDATE' THEN format('an admin may not change %s.%s: it belongs to the system', TG_TABLE_NAME,
                array_to_string(refused, format(', %s.', TG_TABLE_NAME)))
            ELSE format('an admin may not %s rows of %s', lower(TG_OP), TG_TABLE_NAME)
        END,
        DETAIL = 'Each column has one writer, so that nobody undoes what another has just decided.',
        HINT = CASE
            WHEN TG_OP = 'DELETE' AND TG_TABLE_NAME = 'pod' THEN 'UPDATE pod SET desired_state = ''deleted'' WHERE id = …'
            WHEN TG_OP = 'INSERT' AND TG_TABLE_NAME = 'pod' THEN 'Open pods with podctl or the API.'
            WHEN may = '{}' THEN 'Say what you want instead: UPDATE pod SET desired_state = …, or '
                'UPDATE node SET cordoned = …. docs/sql.md lists what may be edited.'
            ELSE format('What an admin may change here: %s.', array_to_string(may, ', '))
        END;
END
$$;

-- Only what the statement changes is written, so that a change made meanwhile by somebody else to another column stays.
CREATE FUNCTION desk_pod_update() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    generation_after bigint;
BEGIN
    UPDATE public.pod AS p SET
        desired_state = CASE WHEN NEW.desired_state IS DISTINCT FROM OLD.desired_state
            THEN NEW.desired_state ELSE p.desired_state END,
        desired_reason = CASE WHEN NEW.desired_reason IS DISTINCT FROM OLD.desired_reason
            THEN NEW.desired_reason ELSE p.desired_reason END,
        asked_again = CASE WHEN NEW.asked_again IS DISTINCT FROM OLD.asked_again
            THEN NEW.asked_again ELSE p.asked_again END,
        image = CASE WHEN NEW.image IS DISTINCT FROM OLD.image THEN NEW.image ELSE p.image END,
        lab = CASE WHEN NEW.lab IS DISTINCT FROM OLD.lab THEN NEW.lab ELSE p.lab END,
        cpu_millis = CASE WHEN NEW.cpu_millis IS DISTINCT FROM OLD.cpu_millis THEN NEW.cpu_millis ELSE p.cpu_millis END,
        memory_mib = CASE WHEN NEW.memory_mib IS DISTINCT FROM OLD.memory_mib THEN NEW.memory_mib ELSE p.memory_mib END,
        pids = CASE WHEN NEW.pids IS DISTINCT FROM OLD.pids THEN NEW.pids ELSE p.pids END,
        failover = CASE WHEN NEW.failover IS DISTINCT FROM OLD.failover THEN NEW.failover ELSE p.failover END
    WHERE id = OLD.id
    RETURNING generation INTO generation_after;
    IF generation_after <> OLD.generation THEN
        PERFORM set_config('codepods.desk_changed', (current_setting('codepods.desk_changed')::bigint + 1)::text, true);
        PERFORM public.check_bulk(current_setting('codepods.desk_changed')::bigint);
    END IF;
    RETURN NEW;
END
$$;

CREATE FUNCTION desk_pod_begin() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('codepods.desk_changed', '0', true);
    RETURN NULL;
END
$$;

CREATE FUNCTION desk_node_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE public.node SET cordoned = NEW.cordoned WHERE id = OLD.id;
    RETURN NEW;
END
$$;

-- What admins never see: what opens an IDE, and what proves who a node or a program is.
CREATE FUNCTION secret_columns(table_name text) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE table_name
        WHEN 'pod_observed' THEN '{session_secret}'
        WHEN 'node' THEN '{token_hash}'
        WHEN 'api_token' THEN '{hash}'
        ELSE '{}'
    END::text[]
$$;

CREATE FUNCTION open_table_to_admins(table_name text, may text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    shown constant text := (
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = format('public.%I', table_name)::regclass AND attnum > 0 AND NOT attisdropped
            AND attname <> ALL (secret_columns(table_name)));
BEGIN
    EXECUTE format('REVOKE ALL ON public.%I FROM codepods_admin', table_name);
    EXECUTE format('GRANT SELECT (%s) ON public.%I TO codepods_admin', shown, table_name);
    IF may <> '{}' THEN
        EXECUTE format('GRANT UPDATE (%s) ON public.%I TO codepods_admin', array_to_string(may, ', '), table_name);
    END IF;
    IF to_regclass(format('codepods_admin.%I', table_name)) IS NOT NULL THEN
        EXECUTE format('DROP VIEW codepods_admin.%I', table_name);
    END IF;
    EXECUTE format('CREATE VIEW codepods_admin.%I WITH (security_invoker) AS SELECT %s FROM public.%1$I',
        table_name, shown);
    EXECUTE format('CREATE TRIGGER desk_1_refuse INSTEAD OF INSERT OR UPDATE OR DELETE ON codepods_admin.%I '
        'FOR EACH ROW EXECUTE FUNCTION public.desk_write(%L)', table_name, may);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON codepods_admin.%I TO codepods_admin', table_name);
END
$$;

-- Makes the role and its desk, or says in a notice that this user of the database may not. Run by each migration, and
-- again by state.migrate while the desk is not there, so that a role made later by hand is noticed.
CREATE FUNCTION open_to_admins() RETURNS void LANGUAGE plpgsql AS $$
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
    FOREACH each_table IN ARRAY '{workspace, placement, pod_observed, workspace_observed, node_lease, report, action,
        archive, event, api_token, leader}'::text[] LOOP
        PERFORM open_table_to_admins(each_table, '{}');
    END LOOP;
    PERFORM open_table_to_admins('pod',
        '{desired_state, desired_reason, asked_again, image, lab, cpu_millis, memory_mib, pids, failover}');
    PERFORM open_table_to_admins('node', '{cordoned}');
    CREATE TRIGGER desk_0_begin BEFORE UPDATE ON codepods_admin.pod
        FOR EACH STATEMENT EXECUTE FUNCTION desk_pod_begin();
    CREATE TRIGGER desk_2_write INSTEAD OF UPDATE ON codepods_admin.pod
        FOR EACH ROW EXECUTE FUNCTION desk_pod_update();
    CREATE TRIGGER desk_2_write INSTEAD OF UPDATE ON codepods_admin.node
        FOR EACH ROW EXECUTE FUNCTION desk_node_update();
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'no role codepods_admin, for this database user may not make it: %', SQLERRM
        USING HINT = 'Admins who use SQL need it: let the DBA run CREATE ROLE codepods_admin and '
            'GRANT CREATE ON DATABASE … TO this user, then start codepods again.';
END
$$;

REVOKE ALL ON FUNCTION open_to_admins(), open_table_to_admins(text, text[]) FROM PUBLIC;

SELECT open_to_admins();
