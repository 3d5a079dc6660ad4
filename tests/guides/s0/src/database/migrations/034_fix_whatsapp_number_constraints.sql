ALTER TABLE merchants ADD CONSTRAINT whatsapp_number_form CHECK (whatsapp_number ~ '^[0-9+]*$');
