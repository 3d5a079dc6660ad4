-- Migration: add_celebrity_ratings
-- Description: Add rating system for celebrities
-- Created: 2025-07-26T12:34:56.789Z

-- ============================================
-- FORWARD MIGRATION
-- ============================================

ALTER TABLE celebrities ADD COLUMN average_rating NUMERIC(3,2) DEFAULT 0;
ALTER TABLE celebrities ADD COLUMN rating_count INTEGER DEFAULT 0;

-- ============================================
-- ROLLBACK
-- ============================================

ALTER TABLE celebrities DROP COLUMN average_rating;
ALTER TABLE celebrities DROP COLUMN rating_count;
