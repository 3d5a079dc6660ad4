-- Migration: chat_system
-- Description: Chat
-- Created: 2025-07-26T12:34:56.789Z

-- ============================================
-- FORWARD MIGRATION
-- ============================================

CREATE TABLE IF NOT EXISTS chats (id serial PRIMARY KEY, body text);

-- ============================================
-- ROLLBACK
-- ============================================

DROP TABLE chats;
