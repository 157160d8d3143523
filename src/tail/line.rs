//! One message as a line of text or JSON.

use std::io::{self, Write};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde::Serialize;
use serde_json::Value;

use crate::error::Result;
use crate::milvus::catalog::{CollectionId, CollectionName, PartitionId};
use crate::milvus::channel::{PChannel, Position};
use crate::milvus::columns::Decoder;
use crate::milvus::header::MessageType;
use crate::milvus::proto::msg;
use crate::milvus::tso::Tso;
use crate::sources::{Envelope, EnvelopeKind};

/// What a message says.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) channel: PChannel,
    pub(super) position: Position,
    ts: Tso,
    kind: &'static str,
    pub(super) collection: Option<CollectionId>,
    pub(super) partition: Option<PartitionId>,
    /// The collection's name, as the catalog has it.
    pub(super) name: Option<CollectionName>,
    pub(super) partition_name: Option<String>,
    /// The name that a DDL message itself gives.
    named: Option<String>,
    rows: Option<usize>,
    bytes: usize,
    keys: Vec<Value>,
    most_keys: usize,
    batch: Option<RecordBatch>,
}

/// Makes lines of messages.
pub(super) struct Read {
    decoder: Decoder,
}

#[derive(Serialize)]
struct Json<'l> {
    channel: &'l str,
    /// The message's id, as the queue's own tools write it.
    id: &'l str,
    /// The same as Milvus encodes it.
    id_base64: String,
    ts: u64,
    time: Option<String>,
    kind: &'l str,
    collection: Option<String>,
    collection_id: Option<i64>,
    partition: Option<&'l str>,
    partition_id: Option<i64>,
    rows: Option<usize>,
    bytes: usize,
    keys: &'l [Value],
}

impl Read {
    pub(super) fn new() -> Read {
        Read { decoder: Decoder::new() }
    }

    /// Decodes a message of `channel`.
    pub(super) fn line(&mut self, channel: &PChannel, envelope: Envelope, most_keys: usize) -> Result<Line> {
        let Envelope { position, kind } = envelope;
        let place = |error: crate::Error| error.context(format!("channel {channel}, position {position:?}"));
        let mut line = Line {
            channel: channel.clone(),
            position: position.clone(),
            ts: Tso::ZERO,
            kind: "",
            collection: None,
            partition: None,
            name: None,
            partition_name: None,
            named: None,
            rows: None,
            bytes: 0,
            keys: Vec::new(),
            most_keys,
            batch: None,
        };
        match kind {
            EnvelopeKind::Tick(ts) => (line.ts, line.kind) = (ts, "tick"),
            EnvelopeKind::Insert(payload, _credit) => {
                let insert = self.decoder.insert(&payload).map_err(place)?;
                (line.ts, line.kind, line.bytes) = (insert.timestamps.max(), "insert", payload.len());
                (line.collection, line.partition) = (Some(insert.collection), Some(insert.partition));
                if !insert.partition_name.is_empty() {
                    line.partition_name = Some(insert.partition_name.to_string());
                }
                line.rows = Some(insert.batch.num_rows());
                line.batch = Some(insert.batch);
            }
            EnvelopeKind::Delete(payload, _credit) => {
                let delete = self.decoder.delete(&payload).map_err(place)?;
                (line.ts, line.kind, line.bytes) = (delete.timestamps.max(), "delete", payload.len());
                (line.collection, line.partition) = (Some(delete.collection), Some(delete.partition));
                if !delete.partition_name.is_empty() {
                    line.partition_name = Some(delete.partition_name.to_string());
                }
                line.rows = Some(delete.keys.len());
                line.keys = keys(&delete.keys, most_keys);
            }
            EnvelopeKind::Other(message_type, ts, payload) => {
                (line.ts, line.kind, line.bytes) = (ts, kind_name(message_type), payload.len());
                line.read_ddl(message_type, &payload);
            }
        }
        Ok(line)
    }
}

fn kind_name(message_type: MessageType) -> &'static str {
    match message_type {
        MessageType::CreateCollection => "create-collection",
        MessageType::DropCollection => "drop-collection",
        MessageType::CreatePartition => "create-partition",
        MessageType::DropPartition => "drop-partition",
        MessageType::Replicate => "replicate",
        MessageType::Insert => "insert",
        MessageType::Delete => "delete",
        MessageType::TimeTick => "tick",
        MessageType::Other(_) => "unknown",
    }
}

/// The first keys of a column.
fn keys(column: &ArrayRef, most: usize) -> Vec<Value> {
    match column.data_type() {
        DataType::Int64 => column
            .as_primitive::<Int64Type>()
            .values()
            .iter()
            .take(most)
            .map(|key| Value::from(*key))
            .collect(),
        DataType::Utf8View => column.as_string_view().iter().flatten().take(most).map(Value::from).collect(),
        _ => Vec::new(),
    }
}

impl Line {
    /// Its time; zero if it has none.
    pub(super) fn ts(&self) -> Tso {
        if self.ts == Tso::ZERO { Tso::MAX } else { self.ts }
    }

    /// The tick that it is.
    pub(super) fn tick(&self) -> Option<Tso> {
        (self.kind == "tick").then_some(self.ts)
    }

    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.unwrap_or(0)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The collection, by the best name that there is.
    pub(super) fn collection_text(&self) -> Option<String> {
        match (&self.name, &self.named, self.collection) {
            (Some(name), ..) => Some(name.to_string()),
            (None, Some(named), _) if !named.is_empty() => Some(named.clone()),
            (None, _, Some(id)) => Some(format!("#{id}")),
            (None, _, None) => None,
        }
    }

    /// Takes the keys of inserted rows out of the column of this name.
    pub(super) fn take_keys(&mut self, column: &str) {
        if let Some(keys_of_rows) = self.batch.as_ref().and_then(|batch| batch.column_by_name(column)) {
            self.keys = keys(keys_of_rows, self.most_keys);
        }
    }

    fn read_ddl(&mut self, message_type: MessageType, payload: &[u8]) {
        // What can't be read is shown without it.
        match message_type {
            MessageType::CreateCollection => {
                if let Ok(message) = msg::CreateCollectionRequest::decode(payload) {
                    self.collection = Some(CollectionId(message.collection_id));
                    self.named = Some(message.collection_name);
                }
            }
            MessageType::DropCollection => {
                if let Ok(message) = msg::DropCollectionRequest::decode(payload) {
                    self.collection = Some(CollectionId(message.collection_id));
                    self.named = Some(message.collection_name);
                }
            }
            MessageType::CreatePartition | MessageType::DropPartition => {
                if let Ok(message) = msg::CreatePartitionRequest::decode(payload) {
                    self.collection = Some(CollectionId(message.collection_id));
                    self.partition = Some(PartitionId(message.partition_id));
                    self.named = Some(message.collection_name);
                    self.partition_name = Some(message.partition_name);
                }
            }
            _ => {}
        }
    }

    fn time(&self) -> Option<String> {
        let millis = i64::try_from(self.ts.millis()).ok().filter(|millis| *millis > 0)?;
        jiff::Timestamp::from_millisecond(millis).ok().map(|moment| format!("{moment:.3}"))
    }

    pub(super) fn write_json(&self, out: &mut impl Write, id: &str) -> io::Result<()> {
        let line = Json {
            channel: &self.channel.0,
            id,
            id_base64: STANDARD.encode(&self.position.0),
            ts: self.ts.0,
            time: self.time(),
            kind: self.kind,
            collection: self.collection_text(),
            collection_id: self.collection.map(|id| id.0),
            partition: self.partition_name.as_deref(),
            partition_id: self.partition.map(|id| id.0),
            rows: self.rows,
            bytes: self.bytes,
            keys: &self.keys,
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")
    }

    pub(super) fn write_text(&self, out: &mut impl Write, id: &str) -> io::Result<()> {
        let time = self.time().unwrap_or_else(|| "-".to_owned());
        write!(out, "{time:<24} {} @{id} {:<7}", self.channel, self.kind)?;
        if let Some(collection) = self.collection_text() {
            write!(out, " {collection}")?;
            if let Some(partition) = &self.partition_name {
                write!(out, "/{partition}")?;
            }
        }
        if let Some(rows) = self.rows {
            let what = if self.kind == "delete" { "key" } else { "row" };
            write!(out, " {rows} {what}{}", if rows == 1 { "" } else { "s" })?;
            if !self.keys.is_empty() {
                let shown: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
                let more = if rows > shown.len() { ", …" } else { "" };
                write!(out, ": {}{more}", shown.join(", "))?;
            }
        }
        writeln!(out)
    }
}
