//! What a collection of the source is on the target: its ids and channels there.

use std::collections::BTreeMap;

use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::CollectionName;
use crate::milvus::channel::VChannel;
use crate::milvus::proto::milvus as pb;
use crate::proxy::{Client, request};

/// A collection on the target.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) name: CollectionName,
    pub(super) id: i64,
    /// By the number of the shard. A key's hash decides the number, so it is the same on both sides; the order of the names
    /// says nothing (`dml_10` stands before `dml_2`).
    pub(super) vchannels: Vec<String>,
    /// Ids by name.
    pub(super) partitions: BTreeMap<String, i64>,
}

impl Place {
    /// Asks what stands under `name`; `None` if nothing does.
    pub(super) async fn find(client: &Client, name: &CollectionName) -> Result<Option<Place>> {
        let Some(described) = client.describe(name).await? else { return Ok(None) };
        let mut vchannels = described.virtual_channel_names;
        vchannels.sort_by_key(|vchannel| shard_of(vchannel));
        let mut place =
            Place { name: name.clone(), id: described.collection_id, vchannels, partitions: BTreeMap::new() };
        place.look(client).await?;
        Ok(Some(place))
    }

    /// Asks for the partitions again.
    pub(super) async fn look(&mut self, client: &Client) -> Result<()> {
        let message = pb::ShowPartitionsRequest {
            db_name: self.name.database.clone(),
            collection_name: self.name.collection.clone(),
            ..Default::default()
        };
        let what = format!("listing partitions of {}", self.name);
        let mut rpc = client.rpc();
        let shown = client.call(&what, rpc.show_partitions(request(message, super::DEADLINE))).await?;
        self.partitions = shown.partition_names.into_iter().zip(shown.partition_i_ds).collect();
        Ok(())
    }

    /// The channel of a shard.
    pub(super) fn vchannel(&self, shard: usize) -> Result<&str> {
        self.vchannels.get(shard).map(String::as_str).ok_or_else(|| {
            let count = self.vchannels.len();
            let text =
                format!("{} has {count} shards on the target, and rows of shard {shard} came", self.name);
            Error::new(Kind::Corrupt, text)
        })
    }

    /// The topics that carry it.
    pub(super) fn pchannels(&self) -> impl Iterator<Item = String> + '_ {
        self.vchannels.iter().map(|vchannel| pchannel_of(vchannel))
    }
}

/// The number of a shard: what stands behind the last `v` of its channel's name.
pub(super) fn shard_of(vchannel: &str) -> Option<usize> {
    vchannel.rsplit_once('v').and_then(|(_, shard)| shard.parse().ok())
}

/// The topic of a channel.
pub(super) fn pchannel_of(vchannel: &str) -> String {
    VChannel(vchannel.into()).pchannel().to_string()
}
