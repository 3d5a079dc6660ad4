ALTER TABLE merchants ALTER COLUMN whatsapp_number DROP NOT NULL;
