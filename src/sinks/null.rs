//! A target that takes everything and keeps nothing: the far end of benchmarks.

use std::time::Duration;

use async_trait::async_trait;

use super::{Found, Sink, Write};
use crate::error::Result;
use crate::milvus::catalog::{Catalog, Collection, CollectionName, Ddl};

/// The null sink.
#[derive(Debug)]
pub struct NullSink;

#[async_trait]
impl Sink for NullSink {
    async fn write(&self, _write: &Write, _deadline: Duration) -> Result<()> {
        Ok(())
    }

    async fn apply(&self, _ddl: &Ddl, _deadline: Duration) -> Result<()> {
        Ok(())
    }

    async fn find(&self, _name: &CollectionName) -> Result<Found> {
        Ok(Found::Absent)
    }

    async fn differences(&self, _wanted: &Collection) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn objections(&self, _wanted: &Catalog) -> Vec<String> {
        Vec::new()
    }

    fn describe(&self) -> String {
        "null".into()
    }
}
