DROP POLICY merchant_own ON merchants;
