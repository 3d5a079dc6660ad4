CREATE OR REPLACE VIEW analytics_daily AS
  SELECT merchant_id, count(*) AS messages FROM message_logs GROUP BY merchant_id;
