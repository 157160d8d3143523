//! Which collections are known not to be selected.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use crate::milvus::catalog::CollectionId;

/// Written by the catalog source, read by `decode` to drop messages that nobody wants before they take up memory.
/// It only ever saves work: what it does not know yet, `order` sorts out.
#[derive(Debug, Default)]
pub struct Directory(RwLock<Arc<BTreeSet<CollectionId>>>);

impl Directory {
    /// These collections exist and are not selected.
    pub fn set_ignored(&self, ignored: Arc<BTreeSet<CollectionId>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = ignored;
    }

    /// Whether a collection is known not to be selected.
    pub fn is_ignored(&self, collection: CollectionId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&collection)
    }
}
