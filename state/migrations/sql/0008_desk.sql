-- The desk of admins follows the tables that there are, so that a role which a DBA makes later sees all of them.

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
    FOR each_table IN SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
            AND relname NOT IN ('alembic_version', 'pod', 'workspace', 'node') LOOP
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
