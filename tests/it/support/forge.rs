//! What only somebody who holds the key can do: another digest in a backup, sealed again so that every tag is right.
//!
//! Written from docs/archive-format.md with the ciphers themselves: the library has no way to write an index that was
//! not counted while a dump passed, and must not get one.

use std::path::Path;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use ripcord::archive::Index;
use ripcord::ids::{BackupId, Lineage};
use ripcord::keys::{KeyRing, MasterKey, Wrap};
use ripcord::manifest;
use sha2::{Digest as _, Sha256};

use super::cli::KEY;

const STREAM_HEADER: usize = 84;
const FRAME_HEADER: usize = 17;
const MIB: usize = 1 << 20;

fn derive(secret: &[u8], salt: Option<&[u8]>, info: &str) -> [u8; 32] {
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(salt, secret).expand(info.as_bytes(), &mut key).unwrap();
    key
}

fn data_key(backup: BackupId, wraps: &[Wrap]) -> Vec<u8> {
    let wrap = &wraps[0];
    let cipher = Aes256Gcm::new(&derive(&hex::decode(KEY).unwrap(), None, "ripcord/1/wrap").into());
    let aad = [&1_u32.to_le_bytes()[..], backup.as_bytes(), wrap.key_id.0.as_bytes()].concat();
    let nonce: [u8; 12] = hex::decode(&wrap.nonce).unwrap().try_into().unwrap();
    let sealed = hex::decode(&wrap.sealed).unwrap();
    cipher.decrypt(&Nonce::from(nonce), Payload { msg: &sealed, aad: &aad }).unwrap()
}

/// A stream with another index: its data frames stay, byte by byte, and so does its salt.
fn with_index(stream: &[u8], lineage: Lineage, backup: BackupId, data_key: &[u8], index: &Index) -> Vec<u8> {
    let salt = &stream[52..STREAM_HEADER];
    let data: usize = index.frames.iter().map(|length| *length as usize).sum();
    let mut forged = stream[..STREAM_HEADER + data].to_vec();
    let key = derive(&derive(data_key, None, "ripcord/1/index"), Some(salt), "ripcord/1/salted");
    let cipher = Aes256Gcm::new(&key.into());
    let plain = serde_json::to_vec(index).unwrap();
    let parts: Vec<&[u8]> = plain.chunks(MIB).collect();
    for (counter, part) in parts.iter().enumerate() {
        let last = u32::from(counter + 1 == parts.len());
        let number = u32::try_from(counter).unwrap().to_le_bytes();
        let kind = 2 + u8::try_from(last).unwrap();
        let aad = [&1_u32.to_le_bytes()[..], lineage.as_bytes(), backup.as_bytes(), &[0; 4], &[kind], &number].concat();
        let nonce: [u8; 12] = [&[0; 4][..], &number, &last.to_le_bytes()].concat().try_into().unwrap();
        let msg = zstd::bulk::compress(part, 1).unwrap();
        let sealed = cipher.encrypt(&Nonce::from(nonce), Payload { msg: &msg, aad: &aad }).unwrap();
        forged.extend(u32::try_from(sealed.len()).unwrap().to_le_bytes());
        forged.push(kind);
        forged.extend(number);
        forged.extend(&salt[..8]);
        forged.extend(sealed);
    }
    assert!(forged.len() > STREAM_HEADER + data + FRAME_HEADER);
    forged
}

/// Seals what `change` makes of the manifest of a backup with one stream in place of it, and of its stream when its
/// index is another one then. Whoever reads it finds every tag right.
pub fn reseal(store: &Path, backup: &str, change: impl FnOnce(&mut manifest::Sealed)) {
    let found = std::fs::read_dir(store).unwrap().flatten().map(|entry| entry.path());
    let lineage = found.into_iter().find(|path| path.join("backups").join(backup).exists()).unwrap();
    let folder = lineage.join("backups").join(backup);
    let lineage: Lineage = lineage.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let backup: BackupId = backup.parse().unwrap();
    let ring = KeyRing::new(vec![MasterKey::from_hex(KEY).unwrap()]).unwrap();
    let bytes = std::fs::read(folder.join("manifest")).unwrap();
    let (mut opened, keys) = manifest::decode(&bytes, lineage, backup, &ring).unwrap();
    let before = opened.sealed.clone();
    change(&mut opened.sealed);
    assert_ne!(opened.sealed, before, "the case changes nothing");
    if opened.sealed.streams[0].index != before.streams[0].index {
        let path = folder.join("0.rip");
        let stream = std::fs::read(&path).unwrap();
        let record = &mut opened.sealed.streams[0];
        let forged = with_index(&stream, lineage, backup, &data_key(backup, &opened.wraps), &record.index);
        record.stored_bytes = forged.len() as u64;
        record.sha256 = hex::encode(Sha256::digest(&forged));
        opened.clear.stored_bytes = forged.len() as u64;
        replace(&path, &forged);
    }
    let sealed = manifest::encode(&opened.clear, &opened.wraps, &opened.sealed, &keys).unwrap();
    replace(&folder.join("manifest"), &sealed);
}

/// The store's files are read-only.
fn replace(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}
