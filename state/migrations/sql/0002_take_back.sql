-- A step that a node was given stays open after it was taken back, until the node answers (LAW 11).
ALTER TABLE action ADD COLUMN taken_back_at timestamptz;
