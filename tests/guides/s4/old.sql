-- Brought to 002 by the guide's system; 003 failed once.
{up:001_users.sql}
{up:002_add_user_preferences_table.sql}
CREATE TABLE _migration_history (
  migration_id VARCHAR(255) PRIMARY KEY,
  name VARCHAR(500) NOT NULL,
  checksum VARCHAR(64) NOT NULL,
  applied_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  applied_by VARCHAR(255) NOT NULL DEFAULT CURRENT_USER,
  duration_ms BIGINT NOT NULL,
  status VARCHAR(50) NOT NULL DEFAULT 'completed',
  metadata JSONB,
  error_message TEXT
);
CREATE TABLE _migration_versions (id serial PRIMARY KEY, version text, name text, migration_id text, created_at timestamptz DEFAULT now());
CREATE TABLE _migration_locks (
  lock_name VARCHAR(255) PRIMARY KEY, lock_id UUID NOT NULL, acquired_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  acquired_by VARCHAR(255) NOT NULL DEFAULT CURRENT_USER, hostname VARCHAR(255) NOT NULL, pid INTEGER NOT NULL,
  expires_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE _backup_history (
  backup_id VARCHAR(64) PRIMARY KEY, filename VARCHAR(500) NOT NULL, path TEXT NOT NULL, size BIGINT NOT NULL,
  checksum VARCHAR(64) NOT NULL, created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(), type VARCHAR(50) NOT NULL
);
CREATE TABLE _migration_audit_log (
  audit_id SERIAL PRIMARY KEY, migration_id VARCHAR(255), action VARCHAR(100) NOT NULL,
  actor VARCHAR(255) NOT NULL DEFAULT CURRENT_USER, timestamp TIMESTAMPTZ NOT NULL DEFAULT NOW(), details JSONB
);
CREATE TABLE _migration_rollback_history (
  rollback_id SERIAL PRIMARY KEY, migration_id VARCHAR(255) NOT NULL, rolled_back_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  rolled_back_by VARCHAR(255) NOT NULL DEFAULT CURRENT_USER, reason TEXT, success BOOLEAN NOT NULL DEFAULT true
);
INSERT INTO _migration_history (migration_id, name, checksum, duration_ms, status, error_message) VALUES
  ('001', 'users', '{sha256:001_users.sql}', 12, 'completed', NULL),
  ('002', 'add user preferences table', '{sha256:002_add_user_preferences_table.sql}', 30, 'completed', NULL),
  ('003', 'status of users', '{sha256:003_backfill_status.sql}', 9, 'failed', 'canceling statement due to lock timeout');
INSERT INTO _migration_locks VALUES ('migration_lock', gen_random_uuid(), now() - interval '1 hour', 'deploy', 'host', 7, now() - interval '50 minutes');
INSERT INTO _backup_history VALUES ('b-1', 'b-1.sql.gz', '/backups/b-1.sql.gz', 1000, 'abc', now(), 'pre-migration');
INSERT INTO _migration_audit_log (migration_id, action) VALUES ('001', 'migration_completed'), ('003', 'migration_failed');
INSERT INTO users (email) VALUES ('a@example.com');
