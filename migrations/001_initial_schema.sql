-- Description: merchants, their products, orders and messages

-- UP
CREATE TABLE merchants (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL,
    whatsapp_number text UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE products (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    merchant_id uuid NOT NULL REFERENCES merchants (id) ON DELETE CASCADE,
    sku text NOT NULL,
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    price numeric(12, 2) NOT NULL CHECK (price >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (merchant_id, sku)
);

CREATE TYPE order_status AS ENUM ('draft', 'placed', 'paid', 'shipped', 'cancelled');

CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    merchant_id uuid NOT NULL REFERENCES merchants (id) ON DELETE CASCADE,
    customer_phone text NOT NULL,
    status order_status NOT NULL DEFAULT 'draft',
    placed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX idx_orders_merchant_id ON orders (merchant_id, created_at);

CREATE TABLE order_lines (
    order_id bigint NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    line_number integer NOT NULL,
    product_id bigint NOT NULL REFERENCES products (id),
    quantity integer NOT NULL CHECK (quantity > 0),
    unit_price numeric(12, 2) NOT NULL,
    PRIMARY KEY (order_id, line_number)
);

CREATE INDEX idx_order_lines_product_id ON order_lines (product_id);

CREATE TABLE message_logs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    merchant_id uuid NOT NULL REFERENCES merchants (id) ON DELETE CASCADE,
    platform text NOT NULL CHECK (platform IN ('whatsapp', 'instagram')),
    direction text NOT NULL CHECK (direction IN ('in', 'out')),
    body text NOT NULL,
    sent_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX idx_message_logs_merchant_id ON message_logs (merchant_id, sent_at);

COMMENT ON TABLE message_logs IS 'Every message between a merchant and a customer';

-- DOWN
DROP TABLE message_logs;
DROP TABLE order_lines;
DROP TABLE orders;
DROP TYPE order_status;
DROP TABLE products;
DROP TABLE merchants;
