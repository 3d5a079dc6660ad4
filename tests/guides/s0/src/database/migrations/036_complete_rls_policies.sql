CREATE POLICY merchant_own ON merchants USING (id = current_merchant_id() OR is_admin_user());
