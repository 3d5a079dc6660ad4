CREATE INDEX IF NOT EXISTS idx_message_logs_merchant ON message_logs (merchant_id);
