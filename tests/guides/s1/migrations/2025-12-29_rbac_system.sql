-- =============================================
-- MIGRATION: RBAC
-- Version: 2025-12-29
-- Author: Platform Team
-- Dependencies: 2025-12-28_enable_rls.sql
-- =============================================

CREATE TABLE IF NOT EXISTS roles (id int PRIMARY KEY, name text NOT NULL);
