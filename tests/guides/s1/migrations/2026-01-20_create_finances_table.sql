-- @depends-on: 2026-01-19_create_tenants_table.sql
-- @depends-on: 2025-12-28_create_crm_tables_final.sql

CREATE TABLE finances (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  tenant_id uuid REFERENCES tenants(id),
  amount numeric(12, 2) NOT NULL
);
ALTER TABLE finances ENABLE ROW LEVEL SECURITY;
CREATE INDEX IF NOT EXISTS idx_finances_tenant_id ON finances (tenant_id);

-- Reload PostgREST
NOTIFY pgrst, 'reload config';
