ALTER TABLE merchants ADD COLUMN IF NOT EXISTS ai_config jsonb DEFAULT '{}'::jsonb;
