//! The generated protobuf types of `proto/`.
#![allow(missing_docs, clippy::all, clippy::clone_on_ref_ptr, clippy::unused_async)]

pub mod common {
    tonic::include_proto!("milvus.proto.common");
}
pub mod schema {
    tonic::include_proto!("milvus.proto.schema");
}
pub mod msg {
    tonic::include_proto!("milvus.proto.msg");
}
pub mod etcd {
    tonic::include_proto!("milvus.proto.etcd");
}
pub mod index {
    tonic::include_proto!("milvus.proto.index");
}
pub mod query {
    tonic::include_proto!("milvus.proto.query");
}
pub mod milvus {
    tonic::include_proto!("milvus.proto.milvus");
}
