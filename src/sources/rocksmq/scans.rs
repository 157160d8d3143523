//! The iterators through which channels are read: a scan of its own for a backlog, memory for the rest.

use std::collections::HashMap;
use std::time::Duration;

use super::channel::{Channel, Read, Stop, View};
use super::cursor::{Cursor, Next};
use super::store::Store;
use crate::error::{Error, Kind, Result};

/// A long scan keeps deleted files and memory in use; after this long its channel goes on with a fresh one.
pub(super) const SCAN_AGE: Duration = Duration::from_secs(5);

/// The iterators on one open store.
pub(super) struct Scans<'db> {
    store: &'db Store,
    /// Channels with a backlog, by serial: an iterator for each, so that none has to find its place again.
    long: HashMap<u64, Scan<'db>>,
    /// Channels at their end share one on the latest view, for what is not in table files.
    memory: Option<Cursor<'db>>,
}

struct Scan<'db> {
    cursor: Cursor<'db>,
    view: View,
}

impl<'db> Scans<'db> {
    pub(super) fn new(store: &'db Store) -> Scans<'db> {
        Scans { store, long: HashMap::new(), memory: None }
    }

    /// Reads one delivery of a channel, which has room for it.
    pub(super) fn read(&mut self, channel: &mut Channel, view: View) -> Result<Read> {
        let store = self.store;
        if !self.long.contains_key(&channel.serial) {
            if channel.tail.is_some_and(|tail| tail.number >= view.memory_from) {
                // All that came since is in memory, and finding it there costs next to nothing.
                let cursor = self.memory.get_or_insert_with(|| Cursor::new(store.scan_memory()));
                cursor.seek(&channel.topic, channel.next)?;
                let read = channel.read(cursor)?;
                if read.stop == Stop::End {
                    channel.note_end(view);
                }
                return Ok(read);
            }
            let scan = store.scan(channel.topic.lower_bound(), channel.topic.upper_bound());
            let mut cursor = Cursor::new(scan);
            let found = cursor.seek(&channel.topic, channel.next)?;
            if !found && !was_at_end(channel, view) && !follows_directly(channel, &cursor)? {
                if channel.gap_seen.replace(view.number).is_none() {
                    return Ok(Read { stop: Stop::Full, pushed: false, bytes: 0 });
                }
                return Err(channel.gap(cursor.current(&channel.topic)?.map(|(id, _)| id)));
            }
            channel.gap_seen = None;
            self.long.insert(channel.serial, Scan { cursor, view });
        }
        let Some(scan) = self.long.get_mut(&channel.serial) else {
            return Err(Error::new(Kind::Internal, "an iterator got lost"));
        };
        let read = channel.read(&mut scan.cursor);
        if read.as_ref().map_or(true, |read| read.stop == Stop::End) {
            if read.is_ok() {
                channel.note_end(scan.view);
            }
            self.long.remove(&channel.serial);
        }
        read
    }

    /// Ends scans that have kept files in use for long: their channels go on with a fresh one.
    pub(super) fn start_view(&mut self, channels: &mut [Channel]) -> Result<()> {
        self.memory = None;
        for channel in channels {
            let old = self.long.get_mut(&channel.serial).filter(|scan| scan.view.taken.elapsed() >= SCAN_AGE);
            if let Some(scan) = old {
                channel.note_goal(&mut scan.cursor)?;
                self.long.remove(&channel.serial);
            }
        }
        Ok(())
    }

    pub(super) fn forget_closed(&mut self, channels: &[Channel]) {
        if !self.long.is_empty() {
            self.long.retain(|serial, _| channels.iter().any(|channel| channel.serial == *serial));
        }
    }
}

/// Whether the next id is the one after the message that was read last: 2.4 and later number each topic by itself.
fn follows_directly(channel: &Channel, cursor: &Cursor<'_>) -> Result<bool> {
    let Next::After(last) = channel.next else { return Ok(false) };
    Ok(cursor.current(&channel.topic)?.is_some_and(|(first, _)| first.checked_sub(1) == Some(last)))
}

/// Whether the channel was at its end when the store was looked at last, a moment ago.
fn was_at_end(channel: &Channel, view: View) -> bool {
    view.watched && channel.tail.is_some_and(|tail| tail.number + 1 == view.number)
}
