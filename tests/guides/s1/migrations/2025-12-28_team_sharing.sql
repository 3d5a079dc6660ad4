-- =============================================
-- MIGRATION: Team sharing
-- Version: 2025-12-28
-- Author: Platform Team
-- Dependencies: 2025-12-29_rbac_system.sql
-- =============================================

CREATE TABLE IF NOT EXISTS team_members (role_id int REFERENCES roles(id), user_id uuid REFERENCES users(id));
