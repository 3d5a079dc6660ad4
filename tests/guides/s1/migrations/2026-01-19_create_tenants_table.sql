-- =============================================
-- MIGRATION: Tenants
-- Version: 2026-01-19
-- Author: Platform Team
-- Dependencies: none (first of its kind)
-- =============================================

CREATE TABLE IF NOT EXISTS tenants (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text);
