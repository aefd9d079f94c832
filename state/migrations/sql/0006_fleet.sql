-- Nodes that somebody declared lost, and pods whose node fences itself.

ALTER TABLE node ADD COLUMN lost_at timestamptz;
ALTER TABLE node ADD COLUMN lost_reason text;
ALTER TABLE node ADD CONSTRAINT node_lost_reason_goes_with_lost_at CHECK ((lost_at IS NULL) = (lost_reason IS NULL));
ALTER TABLE node ADD CONSTRAINT node_lost_reason_is_at_most_500_characters CHECK (length(lost_reason) <= 500);
ALTER TABLE pod_observed ADD COLUMN self_fence_s integer;

-- What a node still had of a placement that was over: nothing points at it by itself.
ALTER TABLE archive ADD COLUMN recovered boolean DEFAULT false NOT NULL;

-- A declaration holds until the node is heard again: whoever is back is not lost.
CREATE OR REPLACE VIEW node_status AS
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
    coalesce(held.reserved, 0) * 512 AS reserved_memory_mib,
    node.lost_at IS NOT NULL AND coalesce(lease.last_seen_at <= node.lost_at, true) AS lost
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

CREATE TRIGGER node_ring_lost AFTER UPDATE OF lost_at ON node FOR EACH STATEMENT EXECUTE FUNCTION ring_desired();

SELECT open_to_admins();
