"""Tokens made before they had names, scopes and an end go on: for everything, and for 90 days where they had no end."""

from __future__ import annotations

from django.db import migrations

KEEP = """
INSERT INTO accounts_apitoken (digest, token_key, created, expiry, name, scopes, user_id)
SELECT digest, token_key, created, COALESCE(expiry, now() + interval '90 days'), 'Earlier token',
       ARRAY['read', 'label', 'chat', 'manage']::varchar(10)[], user_id
FROM knox_authtoken;
DELETE FROM knox_authtoken;
"""
# knox's own table stays, empty, for migrations of its own; it must not tie people to it any more.
UNTIE = """
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT conname FROM pg_constraint WHERE conrelid = 'knox_authtoken'::regclass AND contype = 'f' LOOP
    EXECUTE format('ALTER TABLE knox_authtoken DROP CONSTRAINT %I', name);
  END LOOP;
END $$;
"""
TIE = """
ALTER TABLE knox_authtoken ADD CONSTRAINT knox_authtoken_user_id FOREIGN KEY (user_id)
REFERENCES accounts_user (id) DEFERRABLE INITIALLY DEFERRED;
"""
GIVE_BACK = """
INSERT INTO knox_authtoken (digest, token_key, created, expiry, user_id)
SELECT digest, token_key, created, expiry, user_id FROM accounts_apitoken;
DELETE FROM accounts_apitoken;
"""


class Migration(migrations.Migration):
    dependencies = [("accounts", "0004_api_tokens"), ("knox", "0009_extend_authtoken_field")]
    operations = [
        migrations.RunSQL(KEEP, migrations.RunSQL.noop),
        migrations.RunSQL(UNTIE, TIE),
        migrations.RunSQL(migrations.RunSQL.noop, GIVE_BACK),
    ]
