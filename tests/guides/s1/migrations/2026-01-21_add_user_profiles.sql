-- =============================================
-- MIGRATION: Add user profiles
-- Version: 2026-01-21
-- Author: Platform Team
-- Dependencies: 2025-12-28_enable_rls.sql
-- =============================================

CREATE TABLE IF NOT EXISTS user_profiles (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id uuid REFERENCES users(id),
  email text
);
ALTER TABLE user_profiles ENABLE ROW LEVEL SECURITY;
CREATE POLICY "own profile" ON user_profiles FOR SELECT USING (true);
CREATE INDEX IF NOT EXISTS idx_user_profiles_email ON user_profiles (email);
NOTIFY pgrst, 'reload config';
