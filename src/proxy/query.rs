//! Reading rows: one Query call, its answer taken as bytes and viewed as columns.

use std::marker::PhantomData;
use std::time::Duration;

use arrow_array::RecordBatch;
use bytes::{Buf, Bytes};
use http::uri::PathAndQuery;
use prost::Message as _;
use tonic::codec::{Codec, DecodeBuf, Decoder};

use super::client::{Client, answer, request};
use super::status::{self, Effect};
use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::CollectionName;
use crate::milvus::columns;
use crate::milvus::proto::common::{KeyValuePair, Status};
use crate::milvus::proto::milvus::QueryRequest;
use crate::milvus::tso::Tso;
use crate::milvus::wire::{Value, fields};

/// The most rows that one Query gives (Milvus: `quotaAndLimits.limits.maxQueryResultWindow`).
pub(crate) const MAX_ROWS: usize = 16_384;
/// Milvus' number for: not before the time that is given.
const CUSTOMIZED: i32 = 4;

/// What to read.
#[derive(Clone, Debug)]
pub(crate) struct Query<'a> {
    /// The collection.
    pub(crate) collection: &'a CollectionName,
    /// Only this partition. Where a partition key decides, Milvus refuses a name.
    pub(crate) partition: Option<&'a str>,
    /// Which rows.
    pub(crate) filter: String,
    /// Which columns; that of the key, or the one of `count(*)`, is the first.
    pub(crate) fields: Vec<String>,
    /// The most rows: those with the smallest keys.
    pub(crate) limit: Option<usize>,
    /// The answer shows everything up to this time of the server, and may show more.
    pub(crate) not_before: Tso,
}

impl Client {
    /// Reads rows. Text and vectors of the result are views of the answer.
    ///
    /// # Errors
    /// `NotFound`, `Refused`, … as the server says; [`is_too_large`] tells those that fewer rows would cure.
    pub(crate) async fn query(&self, query: &Query<'_>, deadline: Duration) -> Result<RecordBatch> {
        let mut query_params =
            vec![KeyValuePair { key: "reduce_stop_for_best".into(), value: "true".into() }];
        query_params
            .extend(query.limit.map(|limit| KeyValuePair { key: "limit".into(), value: limit.to_string() }));
        let message = QueryRequest {
            db_name: query.collection.database.clone(),
            collection_name: query.collection.collection.clone(),
            expr: query.filter.clone(),
            output_fields: query.fields.clone(),
            partition_names: query.partition.map(str::to_owned).into_iter().collect(),
            guarantee_timestamp: query.not_before.0,
            query_params: if query.limit.is_some() { query_params } else { Vec::new() },
            consistency_level: CUSTOMIZED,
            ..Default::default()
        };
        let what = format!("reading rows of {} at {}", query.collection, self.uri());
        let mut grpc = self.grpc();
        let sent = async {
            grpc.ready().await.map_err(|error| tonic::Status::from_error(Box::new(error)))?;
            let path = PathAndQuery::from_static("/milvus.proto.milvus.MilvusService/Query");
            grpc.unary(request(message, deadline), path, BytesCodec::default()).await
        };
        let advise = |error| self.role().advise(error);
        let payload = answer(sent, deadline, Effect::Repeatable, &what).await.map_err(advise)?;
        check(&payload, &what).map_err(advise)?;
        let key = query.fields.first().map(String::as_str).unwrap_or_default();
        columns::query_answer(&payload, key).map_err(|error| error.context(what))
    }
}

/// Whether a call failed because what it asked for does not fit into one message.
pub(crate) fn is_too_large(error: &Error) -> bool {
    let report = error.report();
    error.kind() != Kind::Denied && (report.contains("larger than max") || report.contains("too large"))
}

fn check(payload: &Bytes, what: &str) -> Result<()> {
    for field in fields(payload) {
        if let (1, Value::Bytes(bytes)) = field.map_err(Error::from)? {
            let said = Status::decode(bytes).map_err(|error| {
                Error::new(Kind::Corrupt, format!("{what}: the status can't be read")).caused_by(error)
            })?;
            status::check(Some(&said), Effect::Repeatable, what)?;
        }
    }
    Ok(())
}

/// Sends a message, and hands the answer over as it comes.
struct BytesCodec<M>(PhantomData<M>);

impl<M> Default for BytesCodec<M> {
    fn default() -> Self {
        BytesCodec(PhantomData)
    }
}

impl<M: prost::Message + 'static> Codec for BytesCodec<M> {
    type Encode = M;
    type Decode = Bytes;
    type Encoder = tonic_prost::ProstEncoder<M>;
    type Decoder = BytesDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        tonic_prost::ProstEncoder::default()
    }

    fn decoder(&mut self) -> BytesDecoder {
        BytesDecoder
    }
}

struct BytesDecoder;

impl Decoder for BytesDecoder {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, answer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        let length = answer.remaining();
        Ok(Some(answer.copy_to_bytes(length)))
    }
}
