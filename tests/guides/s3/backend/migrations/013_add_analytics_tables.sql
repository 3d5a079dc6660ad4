-- Migration: add_analytics_tables
-- Description: Analytics
-- Created: 2025-07-26T12:34:56.789Z

-- ============================================
-- FORWARD MIGRATION
-- ============================================

CREATE TABLE IF NOT EXISTS metrics (day date PRIMARY KEY, bookings int);

-- ============================================
-- ROLLBACK
-- ============================================

DROP TABLE metrics;
