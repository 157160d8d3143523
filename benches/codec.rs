//! Decoding messages of the log into columns and encoding columns into requests, beside a plain copy of the same
//! bytes: the codec should cost little more than touching them.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use migrans::milvus::columns::Decoder;
use migrans::milvus::proto::msg;
use migrans::milvus::proto::schema::DataType;
use migrans::sinks::milvus::encoded_pieces;
use prost::Message;

#[allow(dead_code, reason = "shared with the tests of the sink")]
#[path = "../tests/milvus_sink/rows.rs"]
mod rows;

use rows::*;

fn codec(criterion: &mut Criterion) {
    for (dim, row_count) in [(128i64, 10_000usize), (768, 1_600)] {
        let fields = vec![
            field(100, "k", DataType::Int64, &[]),
            field(101, "t", DataType::VarChar, &[("max_length", "64")]),
            field(102, "v", DataType::FloatVector, &[("dim", &dim.to_string())]),
        ];
        let collection = collection("c", fields);
        let text = "a text of thirty-two bytes in all";
        let keys = (450_000_000_000_000_000..).take(row_count).collect();
        let values = (0..row_count * usize::try_from(dim).unwrap()).map(|n| n as f32).collect();
        let message = msg::InsertRequest {
            shard_name: "by-dev-rootcoord-dml_3_449v1".into(),
            collection_id: 449,
            row_i_ds: (450_000_000_000_000_000..).take(row_count).collect(),
            timestamps: vec![450_000_000_000_000_000; row_count],
            num_rows: row_count as u64,
            fields_data: vec![longs("k", keys), texts("t", &vec![text; row_count]), floats("v", dim, values)],
            version: 1,
            ..Default::default()
        };
        let payload = Bytes::from(message.encode_to_vec());
        let mut decoder = Decoder::new();
        let batch = decoder.insert(&payload).unwrap().batch;

        let mut group = criterion.benchmark_group(format!("dim {dim}"));
        group.sample_size(50).throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function("copy", |bench| bench.iter(|| black_box(payload.to_vec())));
        group.bench_function("decode", |bench| bench.iter(|| decoder.insert(black_box(&payload)).unwrap()));
        group.bench_function("decode with prost", |bench| {
            bench.iter(|| msg::InsertRequest::decode(black_box(&*payload)).unwrap());
        });
        group.bench_function("encode", |bench| {
            bench
                .iter(|| encoded_pieces(&collection, None, std::slice::from_ref(black_box(&batch))).unwrap());
        });
        group.bench_function("encode and gather", |bench| {
            bench.iter(|| {
                encoded_pieces(&collection, None, std::slice::from_ref(black_box(&batch))).unwrap().concat()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
