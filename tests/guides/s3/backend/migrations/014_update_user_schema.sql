-- Migration: update_user_schema
-- Description: Users
-- Created: 2025-07-26T12:34:56.789Z

-- ============================================
-- FORWARD MIGRATION
-- ============================================

ALTER TABLE celebrities ADD COLUMN IF NOT EXISTS bio text;

-- ============================================
-- ROLLBACK
-- ============================================

ALTER TABLE celebrities DROP COLUMN bio;
