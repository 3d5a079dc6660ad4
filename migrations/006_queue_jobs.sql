-- Description: background jobs, fetched with FOR UPDATE SKIP LOCKED

-- UP
CREATE TABLE queue_jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    merchant_id uuid REFERENCES merchants (id) ON DELETE CASCADE,
    kind text NOT NULL,
    payload jsonb NOT NULL DEFAULT '{}',
    attempts integer NOT NULL DEFAULT 0,
    run_after timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    error text
);

CREATE INDEX idx_queue_jobs_due ON queue_jobs (run_after) WHERE finished_at IS NULL;
CREATE INDEX idx_queue_jobs_merchant_id ON queue_jobs (merchant_id);

ALTER TABLE queue_jobs ENABLE ROW LEVEL SECURITY;

CREATE POLICY merchant_isolation ON queue_jobs
    USING (merchant_id = current_merchant_id() OR is_admin_user());

-- DOWN
DROP TABLE queue_jobs;
