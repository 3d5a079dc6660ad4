-- Migration: initial
-- Description: The first tables
-- Created: 2025-07-26T12:34:56.789Z

-- ============================================
-- FORWARD MIGRATION
-- ============================================

CREATE TABLE IF NOT EXISTS celebrities (id serial PRIMARY KEY, name text NOT NULL);
CREATE TABLE IF NOT EXISTS bookings (id serial PRIMARY KEY, celebrity_id int REFERENCES celebrities(id));

-- ============================================
-- ROLLBACK
-- ============================================

DROP TABLE bookings;
DROP TABLE celebrities;
