//! Sealing an archive anew, under a data key that nobody has seen: new streams beside the old ones, read back, then
//! the manifest, then the old streams go.

use std::io::Read;
use std::sync::Arc;

use super::plan::Line;
use super::{Vault, wraps};
use crate::archive::{ArchiveError, ArchiveReader, ArchiveWriter, BlockEntry, Index, StreamId};
use crate::clock;
use crate::error::{Error, Result};
use crate::ids::{BackupId, Lineage};
use crate::keys::{DataKey, MasterKey, SubKeys, Wrap};
use crate::manifest::{self, Manifest, StreamRecord};
use crate::progress::Progress;
use crate::store::{Mark, Store};

use super::super::backup::{bytes, verify_stream};
use super::super::context::blocking;
use super::super::dumping::Sink;

/// More threads than this would wait for the one that reads.
const MOST_THREADS: usize = 8;

/// Room that must be left besides what is written.
const ROOM_BYTES: u64 = 16 << 20;

/// One backup. The id, the marks and all that the manifest says stay; streams, data key and row digests are new.
pub(super) async fn reencrypt(vault: &Vault, line: &Line, new: &MasterKey, old: &MasterKey) -> Result<()> {
    let (lineage, id) = (line.lineage, line.id);
    vault.progress.began("reencrypt", format!("sealing backup `{id}` anew ({})", bytes(line.stored_bytes)));
    // What an earlier attempt left would be in the way of new names, and takes room.
    sweep(vault, lineage, id).await?;

    let store = vault.store.clone();
    let ring = vault.ring.clone();
    let (manifest, old_keys) =
        blocking(move || manifest::decode(&store.manifest(lineage, id)?, lineage, id, &ring)).await?;
    room(vault, &manifest).await?;
    let manifest = Arc::new(manifest);

    // New names beside the old ones: numbers are free above the highest.
    let data_key = DataKey::generate();
    let keys = data_key.subkeys();
    let above = manifest.sealed.streams.iter().map(|stream| stream.number).max().map_or(0, |most| most + 1);
    let mut streams = Vec::new();
    for (place, record) in manifest.sealed.streams.iter().enumerate() {
        let number = above + u32::try_from(place).unwrap_or(u32::MAX - above);
        let copy = Copy {
            store: vault.store.clone(),
            from: StreamId { lineage, backup: id, stream: record.number },
            to: StreamId { lineage, backup: id, stream: number },
            old_keys: old_keys.clone(),
            keys: keys.clone(),
            record: record.clone(),
            level: vault.level,
            progress: vault.progress.clone(),
        };
        streams.push(blocking(move || copy.run()).await?);
        vault.faults.at("reencrypt_stream").await;
    }

    // The manifest last, in one step: before it the old streams count, after it the new ones.
    let kept: Vec<MasterKey> =
        wraps::others(&vault.ring, &old.id()).into_iter().filter(|key| opened(&manifest, key, new)).collect();
    let rewraps: Vec<Wrap> = kept.iter().map(|key| key.wrap(id, &data_key)).collect();
    let mut clear = manifest.clear.clone();
    clear.stored_bytes = streams.iter().map(|stream| stream.stored_bytes).sum();
    let mut sealed = manifest.sealed.clone();
    sealed.streams = streams;
    let rewritten = manifest::encode(&clear, &rewraps, &sealed, &keys)?;
    for key in &kept {
        if !wraps::opens(&rewritten, key, lineage, id) {
            return Err(Error::failed(format!("key `{}` would not open what would be written", key.id())));
        }
    }
    vault.faults.at("reencrypt_before_manifest").await;
    let store = vault.store.clone();
    blocking(move || {
        store.replace_manifest(lineage, id, &rewritten)?;
        store.mark(lineage, id, &Mark::Verified { at: clock::now(), level: "archive".to_owned() })
    })
    .await?;
    vault.faults.at("reencrypt_manifest").await;

    sweep(vault, lineage, id).await?;
    vault.progress.finished("reencrypt", format!("backup `{id}` is sealed anew and read back"));
    Ok(())
}

/// The new key, and those at hand that open it now.
fn opened(manifest: &Manifest, key: &MasterKey, new: &MasterKey) -> bool {
    key.id() == new.id() || manifest.wraps.iter().any(|wrap| wrap.key_id == key.id())
}

/// Removes the streams that the manifest does not name, and writes that were cut short.
pub(super) async fn sweep(vault: &Vault, lineage: Lineage, id: BackupId) -> Result<()> {
    let (store, ring) = (vault.store.clone(), vault.ring.clone());
    blocking(move || {
        let (manifest, _) = manifest::decode(&store.manifest(lineage, id)?, lineage, id, &ring)?;
        for number in store.stream_numbers(lineage, id)? {
            if !manifest.sealed.streams.iter().any(|stream| stream.number == number) {
                store.delete_stream(lineage, id, number)?;
            }
        }
        store.sweep_backup(lineage, id)
    })
    .await
}

/// Fails before the long work when the store has no room for a second copy of this one backup.
async fn room(vault: &Vault, manifest: &Manifest) -> Result<()> {
    let store = vault.store.clone();
    let needed = manifest.clear.stored_bytes + ROOM_BYTES;
    match blocking(move || store.objects().free_bytes()).await? {
        Some(free) if free < needed => Err(Error::failed(format!(
            "sealing backup `{}` anew needs {} in the store, and {} are free",
            manifest.clear.backup,
            bytes(needed),
            bytes(free)
        ))
        .hint("make room, then run the same command again: it goes on where it stopped")),
        _ => Ok(()),
    }
}

/// One stream, from under one data key to under another.
struct Copy {
    store: Store,
    from: StreamId,
    to: StreamId,
    old_keys: SubKeys,
    keys: SubKeys,
    record: StreamRecord,
    level: i32,
    progress: Progress,
}

impl Copy {
    /// Every byte is authenticated before it is sealed again, and what was written is read back.
    fn run(self) -> Result<StreamRecord> {
        let StreamId { lineage, backup, stream } = self.from;
        let object = self.store.open_stream(lineage, backup, stream)?;
        let source = std::io::BufReader::with_capacity(1 << 20, crate::io::Sequential::new(&*object, 0));
        let mut plain = ArchiveReader::open(source, self.from, &self.old_keys)?;
        let sink = Sink(self.store.begin_stream(lineage, backup, self.to.stream)?);
        let threads = std::thread::available_parallelism().map_or(2, usize::from).min(MOST_THREADS);
        let mut writer = ArchiveWriter::begin(sink, self.to, &self.keys, self.level, threads).map_err(written)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = plain.read(&mut buffer).map_err(ArchiveError::from_io)?;
            if count == 0 {
                break;
            }
            writer.feed(&buffer[..count]).map_err(written)?;
        }
        let index = plain.finish()?;
        if index != self.record.index {
            return Err(ArchiveError::ManifestDisagrees("their indexes are not the same".to_owned()).into());
        }
        let finished = writer.finish().map_err(written)?;
        finished.sink.0.finish()?;
        same_content(&index, &finished.index)?;
        self.store.drop_stream_cache(lineage, backup, self.to.stream)?;
        let total = index.raw_bytes;
        verify_stream(
            &self.store,
            self.to,
            &self.keys,
            &finished.index,
            &finished.stored_sha256,
            &self.progress,
            total,
            "reencrypt",
        )?;
        Ok(StreamRecord {
            number: self.to.stream,
            stored_bytes: finished.stored_bytes,
            sha256: finished.stored_sha256,
            index: finished.index,
        })
    }
}

/// Row digests are keyed by the data key, so they differ; everything else is the same dump.
fn same_content(old: &Index, new: &Index) -> Result<()> {
    let bare = |block: &BlockEntry| {
        let mut block = block.clone();
        block.digest.sum = 0;
        block
    };
    let same = old.raw_bytes == new.raw_bytes
        && old.toc_bytes == new.toc_bytes
        && old.blocks.iter().map(bare).eq(new.blocks.iter().map(bare));
    match same {
        true => Ok(()),
        false => Err(Error::verification("the archive that was sealed anew does not hold what the old one holds")),
    }
}

/// While writing, an error of the sink is the store's own.
fn written(error: ArchiveError) -> Error {
    match error {
        ArchiveError::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(told) => told.clone().context("writing to the store failed"),
            None => Error::failed("writing to the store failed").because(error),
        },
        other => other.into(),
    }
}
