-- Brought to 012 by the guide's manager.
{up:001_initial.sql}
{up:012_chat_system.sql}
CREATE TABLE migration_history (
  id SERIAL PRIMARY KEY,
  migration_name VARCHAR(255) NOT NULL UNIQUE,
  batch_number INTEGER NOT NULL,
  executed_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
  execution_time_ms INTEGER NOT NULL,
  checksum VARCHAR(64) NOT NULL,
  status VARCHAR(20) DEFAULT 'completed',
  rollback_sql TEXT,
  error_message TEXT,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);
CREATE TABLE migration_lock (
  id INTEGER PRIMARY KEY DEFAULT 1,
  is_locked BOOLEAN DEFAULT FALSE,
  locked_by VARCHAR(255),
  locked_at TIMESTAMP WITH TIME ZONE,
  process_id VARCHAR(100),
  expires_at TIMESTAMP WITH TIME ZONE,
  CONSTRAINT single_lock CHECK (id = 1)
);
INSERT INTO migration_lock (id) VALUES (1);
INSERT INTO migration_history (migration_name, batch_number, execution_time_ms, checksum, status, rollback_sql) VALUES
  ('001_initial.sql', 1, 210, '{sha256:001_initial.sql}', 'completed', 'DROP TABLE bookings; DROP TABLE celebrities;'),
  ('012_chat_system.sql', 8, 110, '{sha256:012_chat_system.sql}', 'completed', 'DROP TABLE chats;');
INSERT INTO celebrities (name) VALUES ('one'), ('two');
