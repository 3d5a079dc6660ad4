-- =============================================
-- MIGRATION: Enable RLS
-- Version: 2025-12-28
-- Author: Platform Team
-- Dependencies: None
-- =============================================

CREATE SCHEMA IF NOT EXISTS app;
CREATE TABLE IF NOT EXISTS users (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  email text UNIQUE NOT NULL
);
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
