-- Description: columns for the assistant and for delivery receipts

-- UP
ALTER TABLE merchants
    ADD COLUMN ai_config jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN business_account_id text;

ALTER TABLE message_logs
    ADD COLUMN delivery_status text,
    ADD COLUMN delivered_at timestamptz;

-- DOWN
ALTER TABLE message_logs
    DROP COLUMN delivered_at,
    DROP COLUMN delivery_status;

ALTER TABLE merchants
    DROP COLUMN business_account_id,
    DROP COLUMN ai_config;
