-- @depends-on: 2025-12-29_rbac_system.sql

INSERT INTO roles VALUES (1, 'admin'), (2, 'agent') ON CONFLICT DO NOTHING;
