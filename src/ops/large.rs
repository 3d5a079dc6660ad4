//! Large objects compared with a backup's, for roles that may not look at the catalog that holds them.

use crate::archive::{Digest, ObjectDigester};
use crate::error::Result;
use crate::keys::SubKeys;
use crate::manifest::Manifest;
use crate::postgres::Session;
use crate::postgres::session::explain;

/// Bytes of an object that are read at once.
const PART_BYTES: i32 = 1 << 20;

/// Whether every large object holds what it held at the backup. An object that the role may not read makes it `false`.
pub async fn unchanged(session: &Session, manifest: &Manifest, keys: &SubKeys) -> Result<bool> {
    let mut before = Digest::default();
    for block in manifest.sealed.streams.iter().flat_map(|stream| &stream.index.blocks).filter(|b| b.large_objects) {
        before.merge(block.digest);
    }
    match digest(session, keys).await {
        Ok(now) => Ok(now == before),
        Err(error) if error.connection_lost() => Err(error),
        Err(_) => Ok(false),
    }
}

async fn digest(session: &Session, keys: &SubKeys) -> Result<Digest> {
    // language=SQL
    let all = "SELECT m.oid FROM pg_catalog.pg_largeobject_metadata AS m ORDER BY 1";
    // language=SQL
    let part = "SELECT pg_catalog.lo_get($1, $2, $3)";
    let client = session.client();
    let part = client.prepare(part).await.map_err(|error| explain(&error))?;
    let mut digester = ObjectDigester::new(&keys.digest_key());
    for row in client.query(all, &[]).await.map_err(|error| explain(&error))? {
        let oid: u32 = row.try_get(0).map_err(|error| explain(&error))?;
        digester.begin(oid);
        let mut offset: i64 = 0;
        loop {
            let row = client.query_one(&part, &[&oid, &offset, &PART_BYTES]).await.map_err(|error| explain(&error))?;
            let bytes: &[u8] = row.try_get(0).map_err(|error| explain(&error))?;
            if bytes.is_empty() {
                break;
            }
            digester.feed(bytes);
            offset += i64::from(PART_BYTES);
        }
        digester.end();
    }
    Ok(digester.digest())
}
