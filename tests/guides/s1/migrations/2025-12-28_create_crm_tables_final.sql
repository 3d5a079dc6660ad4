-- =============================================
-- MIGRATION: CRM tables
-- Version: 2025-12-28
-- Author: Platform Team
-- Dependencies: 2025-12-28_enable_rls.sql
-- =============================================

CREATE TABLE IF NOT EXISTS deals (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  owner_id uuid REFERENCES users(id)
);
