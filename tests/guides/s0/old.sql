-- A database that the guide's runner has brought to 034; 035 failed.
{file:001_initial_schema.sql}
{file:002_analytics_views.sql}
{file:015_enable_rls.sql}
{file:027_add_ai_config_to_merchants.sql}
{file:027_performance_indexes.sql}
{file:029_fix_whatsapp_number_nullable.sql}
{file:032_unify_migration_tracking.sql}
{file:033_add_rls_functions.sql}
{file:034_fix_whatsapp_number_constraints.sql}
CREATE TABLE migrations (id serial PRIMARY KEY, filename varchar(255) UNIQUE NOT NULL, executed_at timestamptz DEFAULT now());
CREATE TABLE _migrations (name text PRIMARY KEY, applied_at timestamp DEFAULT now());
INSERT INTO migrations (filename, executed_at) VALUES
  ('001_initial_schema.sql', '2025-01-01'), ('002_analytics_views.sql', '2025-01-02'), ('000_gone.sql', '2024-12-31');
INSERT INTO _migrations VALUES ('015_enable_rls.sql', '2025-01-03');
INSERT INTO schema_migrations (version, applied_at, execution_time_ms, checksum, success, error_message) VALUES
  ('001_initial_schema.sql', '2025-01-01', 120, '{sha256:001_initial_schema.sql}', true, NULL),
  ('002_analytics_views.sql', '2025-01-02', 20, '{sha256:002_analytics_views.sql}', true, NULL),
  ('015_enable_rls.sql', '2025-01-03', 20, NULL, true, NULL),
  ('027_performance_indexes.sql', '2025-01-05', 30, '{sha256:027_performance_indexes.sql}', true, NULL),
  ('027_add_ai_config_to_merchants.sql', '2025-01-04', 40, '{sha256:027_add_ai_config_to_merchants.sql}', true, NULL),
  ('029_fix_whatsapp_number_nullable.sql', '2025-01-06', 40, '{sha256:029_fix_whatsapp_number_nullable.sql}', true, NULL),
  ('032_unify_migration_tracking.sql', '2025-01-07', 41, '{sha256:032_unify_migration_tracking.sql}', true, NULL),
  ('033_add_rls_functions.sql', '2025-01-08', 42, '{sha256:033_add_rls_functions.sql}', true, NULL),
  ('034_fix_whatsapp_number_constraints.sql', '2025-01-09', 43, '{sha256:034_fix_whatsapp_number_constraints.sql}', true, NULL),
  ('035_migration_validation_final.sql', '2025-01-10', 44, '{sha256:035_migration_validation_final.sql}', false, 'relation "x" does not exist');
INSERT INTO merchants (name, whatsapp_number) VALUES ('one', '+9641'), ('two', NULL);
