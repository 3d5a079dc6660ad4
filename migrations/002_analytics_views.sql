-- Description: what each merchant sells

-- UP
CREATE VIEW order_totals AS
SELECT o.id AS order_id,
       o.merchant_id,
       o.status,
       coalesce(sum(l.quantity * l.unit_price), 0) AS total
FROM orders o
LEFT JOIN order_lines l ON l.order_id = o.id
GROUP BY o.id;

CREATE MATERIALIZED VIEW daily_sales AS
SELECT o.merchant_id,
       date_trunc('day', o.placed_at) AS day,
       count(DISTINCT o.id) AS orders,
       sum(l.quantity * l.unit_price) AS revenue
FROM orders o
JOIN order_lines l ON l.order_id = o.id
WHERE o.status IN ('placed', 'paid', 'shipped')
GROUP BY o.merchant_id, date_trunc('day', o.placed_at);

-- REFRESH MATERIALIZED VIEW CONCURRENTLY needs a unique index.
CREATE UNIQUE INDEX idx_daily_sales ON daily_sales (merchant_id, day);

-- DOWN
DROP MATERIALIZED VIEW daily_sales;
DROP VIEW order_totals;
