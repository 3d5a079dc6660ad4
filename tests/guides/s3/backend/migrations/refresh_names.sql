-- Migration: refresh_names
-- Description: A file without a number comes last
-- Created: 2025-07-26T12:34:56.789Z

-- ============================================
-- FORWARD MIGRATION
-- ============================================

COMMENT ON TABLE celebrities IS 'people';

-- ============================================
-- ROLLBACK
-- ============================================

COMMENT ON TABLE celebrities IS NULL;
