CREATE OR REPLACE FUNCTION current_merchant_id() RETURNS uuid LANGUAGE sql STABLE AS
  $$ SELECT nullif(current_setting('app.current_merchant_id', true), '')::uuid $$;
CREATE OR REPLACE FUNCTION is_admin_user() RETURNS boolean LANGUAGE sql STABLE AS
  $$ SELECT current_setting('app.is_admin', true) = 'true' $$;
