-- Migration: add_performance_indexes
-- Description: Indexes
-- Created: 2025-07-26T12:34:56.789Z

-- ============================================
-- FORWARD MIGRATION
-- ============================================

CREATE INDEX CONCURENTLY idx_bookings_celebrity ON bookings (celebrity_id);

-- ============================================
-- ROLLBACK
-- ============================================

DROP INDEX idx_bookings_celebrity;
