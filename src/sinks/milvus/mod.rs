//! Milvus.
use super::*;
/// Milvus.
pub struct MilvusSink;
impl MilvusSink {
    /// Connects.
    pub async fn connect(_config: &crate::pipeline::MilvusTarget) -> Result<MilvusSink> {
        std::future::ready(Ok(MilvusSink)).await
    }
}
#[async_trait]
impl Sink for MilvusSink {
    async fn write(&self, _write: &Write, _deadline: Duration) -> Result<()> {
        Ok(())
    }
    async fn apply(&self, _ddl: &Ddl) -> Result<()> {
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
        "milvus".into()
    }
}
